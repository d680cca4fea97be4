"""Several captions of each image in one answer, each a caption source."""

from __future__ import annotations

import json

import pytest
import yaml
from PIL import Image

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import SettingsError, load_settings
from tests.caption_server import CaptionServer

FIELDS = {"long": "three sentences", "short": "one sentence", "tags": "ten tags, separated by commas"}


def configure(data, url: str, **settings) -> None:
    folder = data / "images"
    folder.mkdir(exist_ok=True)
    for number in range(4):
        Image.new("RGB", (number + 1, 8)).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"photo {number}")
    captioner = {"kind": "openai", "name": "vlm", "url": url, "model": "tiny", "fields": FIELDS, "retries": 1}
    sources = [{"kind": "folder", "name": "photos", "path": str(folder)}]
    written = {"sources": sources, "captioners": [captioner | {"min_coverage": 0} | settings]}
    (data / "dqe.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def test_one_answer_is_several_caption_sources(data):
    asked: dict[int, int] = {}

    async def answer(number: int) -> str:
        asked[number] = asked.get(number, 0) + 1
        fields = {"long": f"This image showcases {number} things.", "short": f"{number} things", "tags": ["a", "b"]}
        if number == 1 and asked[number] == 1:
            return "Of course!"
        if number == 2:
            del fields["tags"]
        return f"```json\n{json.dumps(fields)}\n```" if number == 3 else json.dumps(fields)

    with CaptionServer(answer) as server:
        configure(data, server.url)
        settings = load_settings()
        assert settings.caption_sources == ["original", "vlm", "vlm_short", "vlm_tags"]
        names = ["synthetic_captions/vlm", "synthetic_captions/vlm_short", "synthetic_captions/vlm_tags"]
        with instance() as current:
            runner.sync(settings, current)
            assert runner.materialize(settings, current, assets=["raw_samples", *names]).failures == []
    made = [settings.opened_store.read(name, "photos-00000", SYNTHETIC_CAPTIONS) for name in names]
    assert [table["caption"].to_pylist() for table in made] == [
        ["0 things.", "1 things.", None, "3 things."],
        ["0 things", "1 things", "2 things", "3 things"],
        ["a, b", "a, b", None, "a, b"],
    ]
    assert made[0]["attempts"].to_pylist() == [1, 2, 2, 1]
    assert [text is not None and "short" in text for text in made[0]["text"].to_pylist()] == [True] * 4
    assert made[0]["error"].to_pylist() == [None, None, "tags is missing, or no text", None]
    assert made[0]["flags"].to_pylist()[0] == []
    assert set(made[1]["model"].to_pylist()) == {"tiny"}
    assert made[1]["prompt"].null_count == 4

    request = server.requests[0]
    schema = request["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == list(FIELDS)
    assert all(
        f'- "{name}": {meaning}' in request["messages"][0]["content"][1]["text"] for name, meaning in FIELDS.items()
    )
    again = [
        one["messages"][0]["content"][2]["text"] for one in server.requests if len(one["messages"][0]["content"]) == 3
    ]
    assert len(again) == 2
    assert any("there is no JSON object in it" in text for text in again)


def test_without_fields_nothing_changes(data):
    configure(data, "http://127.0.0.1:1", fields={})
    (captioner,) = load_settings().captioners
    assert not {"fields", "json_schema"} & set(captioner.signature())
    configure(data, "http://127.0.0.1:1")
    assert {"fields", "json_schema"} <= set(load_settings().captioners[0].signature())


def test_a_name_that_a_field_takes_is_refused(data):
    configure(data, "http://127.0.0.1:1")
    written = yaml.safe_load((data / "dqe.yaml").read_text())
    written["captioners"].append({"kind": "labels", "name": "vlm_tags"})
    (data / "dqe.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    with pytest.raises(SettingsError, match="captioners: the name 'vlm_tags' is used twice"):
        load_settings()
