# SPDX-License-Identifier: Apache-2.0
"""The artifact: what the compiler makes of a unit, relocatable, and its form on disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import attrs

FORMAT = 1
"""Version of the JSON form. Raise it with any change of meaning: entries of another format are compiled anew."""


@attrs.frozen
class ProgramCode:
    """
    One program: its instructions, and at which of them (index in units of 8 bytes) which map is loaded.

    The loader writes the map's descriptor into the instruction at each of `map_references`.
    """

    name: str
    instructions: bytes
    map_references: Mapping[int, str] = attrs.field(hash=False)


@attrs.frozen
class MapLayout:
    """
    One map as the compiler saw it.

    `kind` is the kernel's `enum bpf_map_type`, sizes are in bytes, `btf_key_id` and `btf_value_id` are types of the artifact's BTF or 0,
    `inner` names the map of the same artifact that is the template of the maps inside a map of maps.
    """

    name: str
    kind: int
    key_size: int
    value_size: int
    capacity: int
    flags: int = 0
    btf_key_id: int = 0
    btf_value_id: int = 0
    inner: str | None = None


@attrs.frozen
class Artifact:
    """A compiled unit; `key` is the hash of everything that went into it."""

    key: str
    programs: Mapping[str, ProgramCode] = attrs.field(hash=False)
    maps: Mapping[str, MapLayout] = attrs.field(hash=False)
    btf: bytes = attrs.field(repr=False)

    def to_json(self) -> str:
        """The artifact as text; `from_json` reads it back."""
        return json.dumps(
            {
                "format": FORMAT,
                "key": self.key,
                "programs": [
                    {
                        "name": program.name,
                        "instructions": _text(program.instructions),
                        "map_references": [[index, name] for index, name in program.map_references.items()],
                    }
                    for program in self.programs.values()
                ],
                "maps": [attrs.asdict(layout) for layout in self.maps.values()],
                "btf": _text(self.btf),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Artifact:
        """
        Read an artifact.

        Raises:
            ValueError: this is not an artifact of this `FORMAT`.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not an artifact of format {FORMAT}")
        try:
            programs = [
                ProgramCode(item["name"], base64.b64decode(item["instructions"], validate=True), dict(item["map_references"]))
                for item in data["programs"]
            ]
            maps = [MapLayout(**item) for item in data["maps"]]
            btf = base64.b64decode(data["btf"], validate=True)
            return cls(data["key"], {program.name: program for program in programs}, {layout.name: layout for layout in maps}, btf)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an artifact: {error!r}") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
