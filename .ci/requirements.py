"""Print what setup.cfg requires for one of requirements/*.txt: server (to run it), develop (tests and checks too), bench."""

import configparser
import sys

setup = configparser.ConfigParser()
setup.read("setup.cfg")
extras = setup["options.extras_require"]
server = [setup["options"]["install_requires"], extras["acme"]]
blocks = {
    # What builds this package, as a build that fetched it would check no hash.
    "server": [*server, "setuptools\nwheel"],
    "develop": [*server, extras["test"], extras["check"]],
    "bench": [extras["bench"]],
}
print(*(line.replace(" ", "") for block in blocks[sys.argv[1]] for line in block.split("\n") if line.strip()))
