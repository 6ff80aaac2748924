"""Training: launching, the loop with its hooks, and the trainer that a configuration describes."""

from fastreid.engine.defaults import default_setup, read_config, setup_config
from fastreid.engine.launch import launch
from fastreid.engine.run_folder import open_output_dir, storage_errors_named
from fastreid.engine.train_loop import HookBase, SimpleTrainer, TrainerBase
from fastreid.engine.trained_model import find_checkpoint, load_trained_model, model_config, trained_config
from fastreid.engine.trainer import DefaultTrainer
from fastreid.utils.training_arguments import default_argument_parser
