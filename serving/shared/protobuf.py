"""Protocol buffer messages that no package ships, declared in Python."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Fields = Mapping[str, tuple[int, str]]
"""Name of each field, its number, and its type: `int64`, `repeated string`, or a message's full name after a dot."""


def build_messages(package: str, messages: Mapping[str, Fields], *, dependency: str) -> dict[str, Any]:
    """Return the class of each message.

    Args:
        package: of the messages, which no other module may build.
        messages: the fields of each message, by its name.
        dependency: the file that has the messages of other packages that are fields.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}/messages.proto", package=package, syntax="proto3", dependency=[dependency]
    )
    for name, fields in messages.items():
        built = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            label = field.LABEL_REPEATED if kind.startswith("repeated ") else field.LABEL_OPTIONAL
            added = built.field.add(name=field_name, number=number, label=label)
            if kind.startswith("."):
                added.type, added.type_name = field.TYPE_MESSAGE, kind
            else:
                added.type = field.Type.Value(f"TYPE_{kind.removeprefix('repeated ').upper()}")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}
