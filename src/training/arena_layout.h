// Where the parameters of an arena lie in its flat buffers, and which parts of these belong to which process.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mdm/training/parameter_arena.h"

namespace mdm {

// One parameter's place.
struct ArenaSlot {
  std::string name;
  at::Tensor tensor;  // the module's own
  ArenaSegment segment = ArenaSegment::kTrained;
  bool rounded = false;  // computes in bfloat16
  std::vector<int64_t> sizes, strides;
  int64_t count = 0;
  int64_t offset = 0;          // in the buffers of float32
  int64_t compute_offset = 0;  // in that of bfloat16; of trained parameters the same

  bool trained() const { return segment == ArenaSegment::kTrained; }
};

// What one process updates: elements [first, first + count) of the trained ones, all rounded or none. In buffers that
// hold only this process's elements they begin at `own`.
struct ArenaPiece {
  int64_t first = 0, count = 0, own = 0;
  bool rounded = false;
};

// Trained parameters come first, of these the rounded ones; then frozen and unused ones. Both sections of trained ones
// are cut into buckets. With several parts each bucket is made of equal parts, in the order of ranks.
struct ArenaLayout {
  // Offsets for the slots, which have all other fields set.
  ArenaLayout(std::vector<ArenaSlot> slots, int64_t bucket_numbers, int64_t part, int64_t parts);

  std::vector<ArenaSlot> slots;   // in the caller's order
  std::vector<size_t> placement;  // indices of slots, in the order in which they lie in the buffers
  int64_t total = 0;              // numbers in all slots with padding
  int64_t trained = 0;            // ... in those of trained parameters, which come first
  int64_t trained_rounded = 0;    // ... in those of trained parameters that compute in bfloat16, the first of these
  int64_t rounded = 0;            // ... in all that compute in bfloat16
  int64_t part = 0, parts = 1;    // this process's, and how many there are
  std::vector<ParameterArena::Range> buckets;
  std::vector<ArenaPiece> pieces;  // as few as possible

  int64_t own(int64_t numbers) const { return numbers / parts; }
  ArenaPiece own_piece(const ParameterArena::Range& bucket) const;

  // Numbers that a slot takes up, with padding.
  static int64_t room(const ArenaSlot& slot);

 private:
  void place();
  void cut(int64_t first, int64_t end, int64_t bucket_numbers);
};

// A view of a slot in a buffer in which it begins at `offset`. It has a version counter of its own: without that,
// writing to one parameter would count as a change of all others.
at::Tensor view_of(const at::Tensor& flat, const ArenaSlot& slot, int64_t offset);

}  // namespace mdm
