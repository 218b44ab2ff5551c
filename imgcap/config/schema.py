"""Every section under one roof, for imports that don't name its module yet."""

from imgcap.config.data import DataConfig as DataConfig
from imgcap.config.data import VocabConfig as VocabConfig
from imgcap.config.engine import EngineConfig as EngineConfig
from imgcap.config.evaluation import EvalConfig as EvalConfig
from imgcap.config.model import AttentionLSTMConfig as AttentionLSTMConfig
from imgcap.config.model import DecoderConfig as DecoderConfig
from imgcap.config.model import EncoderConfig as EncoderConfig
from imgcap.config.model import LSTMConfig as LSTMConfig
from imgcap.config.model import ModelConfig as ModelConfig
from imgcap.config.run import CheckpointConfig as CheckpointConfig
from imgcap.config.run import Config as Config
from imgcap.config.run import LogConfig as LogConfig
from imgcap.config.section import Positive as Positive
from imgcap.config.section import Section as Section
from imgcap.config.section import steps_of as steps_of
from imgcap.config.training import EarlyStoppingConfig as EarlyStoppingConfig
from imgcap.config.training import OptimConfig as OptimConfig
from imgcap.config.training import Stage as Stage
from imgcap.config.training import TeacherForcingConfig as TeacherForcingConfig
from imgcap.config.training import TrainConfig as TrainConfig
