"""Prints what TensorBoard's own reader finds in a folder of event files, as JSON.

usage: read_events.py FOLDER    (exit code 77: the tensorboard package is not there)
"""

import json
import sys

try:
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # noqa: F401
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)


def hparams_of(accumulator):
    found = {}
    for tag, content in accumulator.summary_metadata.items():
        if content.plugin_data.plugin_name != "hparams":
            continue
        data = content.plugin_data.content
        if tag == metadata.EXPERIMENT_TAG:
            experiment = metadata.parse_experiment_plugin_data(data)
            found["metrics"] = [info.name.tag for info in experiment.metric_infos]
            found["names"] = sorted(info.name for info in experiment.hparam_infos)
        elif tag == metadata.SESSION_START_INFO_TAG:
            start = metadata.parse_session_start_info_plugin_data(data)
            found["values"] = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
        elif tag == metadata.SESSION_END_INFO_TAG:
            found["status"] = metadata.parse_session_end_info_plugin_data(data).status
    return found


def main(folder):
    accumulator = event_accumulator.EventAccumulator(folder, size_guidance={name: 0 for name in (
        event_accumulator.SCALARS, event_accumulator.IMAGES, event_accumulator.TENSORS)})
    accumulator.Reload()
    tags = accumulator.Tags()
    result = {
        "scalars": {tag: [[event.step, repr(event.value)] for event in accumulator.Scalars(tag)]
                    for tag in tags["scalars"]},
        "images": {tag: [[event.step, event.width, event.height, event.encoded_image_string.hex()]
                         for event in accumulator.Images(tag)] for tag in tags["images"]},
        "texts": {tag: [[event.step, event.tensor_proto.string_val[0].decode()] for event in accumulator.Tensors(tag)]
                  for tag, content in accumulator.summary_metadata.items()
                  if content.plugin_data.plugin_name == "text"},
        "hparams": hparams_of(accumulator),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
