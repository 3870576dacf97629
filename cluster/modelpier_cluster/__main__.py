"""`python3 -m modelpier_cluster`, for those who have the package in their PYTHONPATH."""

import sys

from modelpier_cluster.cli import main

sys.exit(main())
