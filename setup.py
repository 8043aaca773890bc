"""Names what a wheel holds: the packages of every room, the catalogue and the recipes of methods."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOMS = (".", "pipelines", "metrics", "baselines", "leaderboards")
OWN = ["talking_face*", "embedded_corpus*", "cmet_*"]

packages: list[str] = []
package_dir: dict[str, str] = {}
for room in ROOMS:
    for name in find_namespace_packages(room, include=OWN):
        packages.append(name)
        package_dir[name] = name.replace(".", "/") if room == "." else f"{room}/{name.replace('.', '/')}"
DATA = {"cmet_baselines.catalogue": "baselines/catalogue", "cmet_baselines.recipes": "baselines/recipes"}
for folder in sorted(path for path in Path("baselines/recipes").iterdir() if path.is_dir()):
    DATA[f"cmet_baselines.recipes.{folder.name}"] = str(folder)
packages.extend(DATA)
package_dir.update(DATA)

setup(packages=packages, package_dir=package_dir)
