"""One run, and what makes it trustworthy. Nothing here imports the experiment.

Importing the package registers the schema of the config with Hydra and applies `hydra_patches`.
"""

from lab import hydra_patches as hydra_patches
from lab import schema as schema
