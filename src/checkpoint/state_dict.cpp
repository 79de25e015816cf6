// Strict matching of a file's names and shapes to a model's, then one copy per tensor.
#include "mdm/checkpoint/state_dict.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/ScalarType.h>

#include <unordered_map>
#include <unordered_set>

#include "checkpoint/open_file.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr size_t kMaxListed = 4000;  // more than any model has; a hostile file could offer any number

std::string shape_of(at::IntArrayRef shape) {
  std::string text = "(";
  for (size_t d = 0; d < shape.size(); ++d) text += concat(d > 0 ? ", " : "", shape[d]);
  return text + ")";
}

// 0: truth values, 1: whole numbers, 2: floating point; copies don't cross these.
int number_kind(at::ScalarType type) {
  if (type == at::ScalarType::Bool) return 0;
  return c10::isFloatingType(type) ? 2 : 1;
}

// Why an entry of the file can't be copied to `tensor`; empty: it can.
std::string mismatch(const TensorEntry& entry, const at::Tensor& tensor) {
  if (tensor.sizes() != at::IntArrayRef(entry.shape)) {
    return concat(printable(entry.name), ": ", shape_of(entry.shape), " in the file, ", shape_of(tensor.sizes()),
                  " in the model");
  }
  if (number_kind(entry.dtype) != number_kind(tensor.scalar_type())) {
    return concat(printable(entry.name), ": ", c10::toString(entry.dtype), " in the file, ",
                  c10::toString(tensor.scalar_type()), " in the model");
  }
  return {};
}

void list_names(std::string& text, const char* title, const std::vector<std::string>& names) {
  if (names.empty()) return;
  text += concat("\n  ", names.size(), " ", title, ":");
  for (size_t i = 0; i < std::min(names.size(), kMaxListed); ++i) text += "\n    " + printable(names[i], 400);
  if (names.size() > kMaxListed) text += concat("\n    and ", names.size() - kMaxListed, " more");
}

// A prefix P such that P + name is in the file for at least half of the missing names.
std::string helpful_prefix(const TensorFile& file, const LoadOptions& options,
                           const std::vector<std::string>& missing) {
  if (missing.empty()) return {};
  const std::string ending = "." + missing[0];
  int tries = 16;  // a hostile file could offer any number
  for (const auto& entry : file.entries()) {
    const std::string& name = entry.name;
    if (name.size() <= ending.size() || name.compare(name.size() - ending.size(), ending.size(), ending) != 0) continue;
    if (--tries < 0) break;
    const std::string prefix = name.substr(0, name.size() - missing[0].size());
    size_t found = 0;
    for (const auto& wanted : missing) found += file.find(prefix + wanted) != nullptr ? 1 : 0;
    if (2 * found >= missing.size() && prefix != options.prefix) return prefix;
  }
  return {};
}

std::string describe_misfit(const TensorFile& file, const LoadOptions& options, const LoadReport& report) {
  std::string text = concat(checkpoint::place_of(file.path()), ": doesn't fit the model:");
  list_names(text, "missing", report.missing);
  list_names(text, "unexpected", report.unexpected);
  list_names(text, "of another shape or type", report.mismatched);
  if (const std::string prefix = helpful_prefix(file, options, report.missing); !prefix.empty()) {
    text += concat("\n  The names in the file begin with '", printable(prefix), "': load with that prefix.");
  }
  return text;
}

}  // namespace

LoadReport load_state_dict(const TensorFile& file, const std::vector<NamedTensor>& destination,
                           const LoadOptions& options) {
  std::unordered_map<std::string_view, size_t> index;
  for (size_t i = 0; i < destination.size(); ++i) {
    if (!index.emplace(destination[i].name, i).second) {
      fail<Error>("load_state_dict: the destination names '", printable(destination[i].name), "' twice");
    }
  }
  LoadReport report;
  std::vector<std::pair<const TensorEntry*, size_t>> copies;  // in the file's order, which is quick to read
  std::vector<bool> found(destination.size(), false);
  for (const auto& entry : file.entries()) {
    if (entry.name.compare(0, options.prefix.size(), options.prefix) != 0) continue;
    if (!options.ignored_prefix.empty() && entry.name.rfind(options.ignored_prefix, 0) == 0) continue;
    const std::string_view name = std::string_view(entry.name).substr(options.prefix.size());
    const auto at = index.find(name);
    if (at == index.end()) {
      report.unexpected.push_back(entry.name);
      continue;
    }
    found[at->second] = true;
    std::string problem = mismatch(entry, destination[at->second].tensor);
    if (problem.empty()) {
      copies.emplace_back(&entry, at->second);
    } else {
      report.mismatched.push_back(std::move(problem));
    }
  }
  for (size_t i = 0; i < destination.size(); ++i) {
    if (!found[i]) report.missing.push_back(destination[i].name);
  }
  const bool fits = report.missing.empty() && report.unexpected.empty() && report.mismatched.empty();
  if (!fits && !options.allow_partial) throw CheckpointError(describe_misfit(file, options, report));
  if (options.compare_only) return report;

  const at::NoGradGuard no_grad;
  for (const auto& [entry, i] : copies) {
    at::Tensor to = destination[i].tensor;
    ++report.loaded;
    if (options.share && to.is_cpu() && to.scalar_type() == entry->dtype) {
      const at::Tensor view = file.passing_tensor(entry->name);
      if (view.is_contiguous()) {
        to.set_data(view);
        continue;
      }
    }
    to.copy_(file.tensor(entry->name));
    file.release(*entry);
  }
  return report;
}

void own_tensors(const std::vector<NamedTensor>& shared) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& named : shared) {
    at::Tensor tensor = named.tensor;
    if (tensor.numel() > 0) tensor.set_data(tensor.clone());
  }
}

}  // namespace mdm
