"""The whole of Quix Streams, for the one process that derives streams: docs/decisions/0003.

A library behind it turns its own deprecation notices on while it is imported, past every filter;
recorded, they are not shown.
"""

import warnings

import shop.kafka.quix  # noqa: F401  # first, so that there is one set of client classes

with warnings.catch_warnings(record=True):
    from quixstreams import Application, State, message_context
    from quixstreams.dataframe import StreamingDataFrame
    from quixstreams.exceptions import QuixException
    from quixstreams.models import Serializer, TopicAdmin, TopicConfig, TopicManager
    from quixstreams.models import Topic as QuixTopic

__all__ = [
    "Application",
    "QuixException",
    "QuixTopic",
    "Serializer",
    "State",
    "StreamingDataFrame",
    "TopicAdmin",
    "TopicConfig",
    "TopicManager",
    "message_context",
]
