"""`driftloop apply`: read a spec, freeze its reference, publish it. Every process follows; nobody restarts anything."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from driftloop.replay.source import read_table
from schemas.clock import Clock, SystemClock
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.spec import ModelSpec, PublishedSpec, parse_spec
from store.client import ClickHouse

MIN_REFERENCE_ROWS = 100
