"""The failures that a person can mend. Each message states the rule, what was received and what to do next."""


class ComponentError(Exception):
    """A step cannot go on."""


class DataError(ComponentError):
    """The labelled images are missing, unreadable or unfit to train on."""


class WeightsError(ComponentError):
    """The backbone's weights are missing, cannot be fetched or belong to another architecture."""


class EvaluationError(ComponentError):
    """A model cannot be evaluated, which is not the same as a model that is not blessed."""


class InfraValidationError(ComponentError):
    """A model cannot be tried in a server, which is not the same as a server that does not serve it."""


class ParityError(ComponentError):
    """The forms of a model predict differently for the same photo."""


class PushError(ComponentError):
    """A model cannot be published or withdrawn."""


class InferenceError(ComponentError):
    """Images cannot be classified in bulk, which is not the same as an image that cannot be read."""


class BeamError(ComponentError):
    """Apache Beam is not there, or what it runs failed."""


class ReleaseError(ComponentError):
    """A release cannot begin or go on, which is not the same as a version that is rolled back."""


class StorageError(ComponentError):
    """A URL cannot be reached, read or written."""


class ClusterError(ComponentError):
    """The workers of a training are not described, or do not come together."""
