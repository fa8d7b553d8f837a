"""Print what setup.cfg requires, extras included: the environment has the dependencies, the code is this checkout."""

import configparser

setup = configparser.ConfigParser()
setup.read("setup.cfg")
extras = setup["options.extras_require"]
lines = [setup["options"]["install_requires"], extras["acme"], extras["test"], extras["check"]]
print(*(line.replace(" ", "") for block in lines for line in block.split("\n") if line.strip()))
