"""The defaults of a run as a config, which a file in `configs/` changes.

A component's section holds its name and those of its options that differ from its own defaults,
which stand in the component's class or function beside its paper. `hyperrec options` lists all.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from hyperrec_jax.config.presets import preset_values
from hyperrec_jax.config.sections import SECTIONS, section_options


def get_config(preset: str = "default") -> ConfigDict:
    """Returns the defaults with a preset laid over them.

    Args:
      preset: A key of `hyperrec_jax.config.presets.PRESETS`.

    Raises:
      UserError: there is no such preset.
    """
    config = ConfigDict({"preset": preset, "seed": 0})
    for section in SECTIONS:
        config[section] = ConfigDict(
            {
                name: placeholder(object) if option.default is None else option.default
                for name, option in section_options(section).items()
            }
        )
    config.model = ConfigDict({"name": "pomoe"})
    # By default linear, for models that take no preference uniform.
    config.objective = ConfigDict({"name": placeholder(str)})
    # By default entropy, for models that take no preference none.
    config.normaliser = ConfigDict({"name": placeholder(str)})
    config.sampler = ConfigDict({"name": "stratified"})
    for key, value in preset_values(preset).items():
        section, _, name = key.partition(".")
        config[section][name] = value
    return config
