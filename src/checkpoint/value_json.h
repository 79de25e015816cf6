// The plain values of a pickle as JSON text. Free of LibTorch.
#pragma once

#include <string>

#include "checkpoint/pickle.h"

namespace mdm::checkpoint {

// Everything below `root` but the tensors of the dictionary `tensors` (which may be null or root itself).
// Numbers, texts, lists, tuples (as lists) and dictionaries stand for themselves, keys that are no text are
// shown as text; Namespace, the reference's config classes and its enums are shown as the dictionaries and
// names they hold. Whole numbers beyond 64 bits: {"__int__": "123"}; NaN and infinities: {"__float__":
// "nan"}; bytes: {"__bytes__": "hex"}; sets: {"__set__": [...]}; tensors: {"__class__": "torch.Tensor",
// "dtype": ..., "shape": ...}; other objects: {"__class__": "module.name", ...}. Values may be shared or
// contain themselves, so depth (64), count and length are bounded; what is cut is shown as
// {"__cut__": reason}.
std::string value_to_json(const Value& root, const Value* tensors);

// Whether a class is one of the reference's configs or argparse.Namespace, whose fields are plain data.
bool is_config_class(const Value& global);

// The member's name for one of the reference's enums, however it was pickled; empty otherwise.
std::string_view enum_member(const Value& object);

}  // namespace mdm::checkpoint
