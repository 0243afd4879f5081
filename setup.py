"""Maps the four rooms onto the import package `tellsign`; everything else is in pyproject.toml.

setuptools cannot prefix found packages from pyproject.toml, and the rooms must not become top-level packages: an app
that has a folder called `schemas` or `plugins` of its own would break.
"""

from setuptools import find_packages, setup

ROOMS = ("schemas", "plugins", "fusion")

package_dir = {"tellsign": "sdk"} | {f"tellsign.{room}": room for room in ROOMS}
packages = ["tellsign"] + [f"tellsign.{name}" for name in find_packages("sdk")]
for room in ROOMS:
    packages += [f"tellsign.{room}"] + [f"tellsign.{room}.{name}" for name in find_packages(room)]
package_dir |= {f"tellsign.{name}": f"sdk/{name.replace('.', '/')}" for name in find_packages("sdk")}

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={"": ["py.typed", "**/*.safetensors", "**/*.json", "**/*.ubj", "**/*.md", "**/*.html"]},
)
