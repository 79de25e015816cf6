// Reading PyTorch's layouts: finds the pickle and the storages, and turns pickled tensors into records.
#include "checkpoint/torch_archive.h"

#include <algorithm>

#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr size_t kMaxPickleBytes = size_t{256} << 20;
constexpr size_t kMaxKeyBytesOfStorage = 256;
constexpr int kMaxWrappers = 8;  // parameters around subclasses around tensors

// The values may take this much memory: plenty for real files, whose size is in their storages.
size_t arena_bytes(const FileBytes& file) { return (size_t{32} << 20) + 2 * file.size(); }

// A call of one of torch's functions that put a tensor together.
struct TensorCall {
  const Value* storage = nullptr;
  const Value* offset = nullptr;
  const Value* shape = nullptr;
  const Value* strides = nullptr;
  const Value* dtype = nullptr;  // only of _rebuild_tensor_v3
};

std::optional<TensorCall> plain_tensor_call(const Value& callee, const Value& args) {
  const bool v3 = callee.is_global("torch._utils", "_rebuild_tensor_v3");
  const bool known = v3 || callee.is_global("torch._utils", "_rebuild_tensor_v2") ||
                     callee.is_global("torch._utils", "_rebuild_tensor");
  if (!known || !args.is(Kind::kTuple) || args.items.size() < (v3 ? 7 : 4)) return std::nullopt;
  TensorCall call{args.items[0], args.items[1], args.items[2], args.items[3], v3 ? args.items[6] : nullptr};
  if (!call.storage->is(Kind::kPersistent)) return std::nullopt;
  return call;
}

std::optional<TensorCall> tensor_call(const Value& value) {
  const Value* at = &value;
  for (int depth = 0; depth < kMaxWrappers; ++depth) {
    if (!at->is(Kind::kObject) || !at->callee->is(Kind::kGlobal) || !at->args->is(Kind::kTuple)) return std::nullopt;
    const Value& callee = *at->callee;
    const auto& args = at->args->items;
    if (const auto call = plain_tensor_call(callee, *at->args)) return call;
    const bool parameter = callee.is_global("torch._utils", "_rebuild_parameter") ||
                           callee.is_global("torch._utils", "_rebuild_parameter_with_state") ||
                           callee.is_global("torch.nn.parameter", "Parameter");
    if (parameter && !args.empty()) {
      at = args[0];
      continue;
    }
    // (function, type, its arguments, state): the subclass is data to us, its values are the same.
    if (callee.is_global("torch._tensor", "_rebuild_from_type_v2") && args.size() >= 3) {
      return plain_tensor_call(*args[0], *args[2]);
    }
    return std::nullopt;
  }
  return std::nullopt;
}

bool read_sizes(const Value& value, std::vector<int64_t>& out) {
  if ((!value.is(Kind::kTuple) && !value.is(Kind::kList)) || value.items.size() > kMaxDimensions) return false;
  for (const Value* item : value.items) {
    if (!item->is(Kind::kInt) || item->integer < 0) return false;
    out.push_back(item->integer);
  }
  return true;
}

// Adds to `index` how far the last element of a tensor that is not empty lies behind its first; false when
// that does not fit.
bool add_reach(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides, int64_t& index) {
  for (size_t d = 0; d < shape.size(); ++d) {
    int64_t reach = 0;
    if (!checked_multiply(shape[d] - 1, strides[d], reach) || !checked_add(index, reach, index)) return false;
  }
  return true;
}

// Row-major without gaps; the stride of a size of one doesn't matter.
bool is_packed(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  int64_t expected = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] != 1 && strides[d] != expected) return false;
    expected *= shape[d];
  }
  return true;
}

bool truthy(const Value* value) { return value != nullptr && value->is(Kind::kBool) && value->integer != 0; }

}  // namespace

bool is_tensor(const Value& value) { return tensor_call(value).has_value(); }

bool claims_tensor(const Value& value) {
  if (!value.is(Kind::kObject) || !value.callee->is(Kind::kGlobal)) return false;
  return value.callee->module == "torch._utils" && value.callee->text.substr(0, 8) == "_rebuild";
}

std::optional<TensorSummary> summarize_tensor(const Value& value) {
  const auto call = tensor_call(value);
  TensorSummary summary;
  if (!call || !read_sizes(*call->shape, summary.shape)) return std::nullopt;
  if (call->dtype != nullptr) {
    summary.dtype = call->dtype->text;
  } else if (const Value* id = call->storage->args; id->is(Kind::kTuple) && id->items.size() >= 2) {
    const auto type = find_element_type(&ElementTypeInfo::torch_storage, id->items[1]->text);
    summary.dtype = type ? info(*type).torch_dtype : id->items[1]->text;
  }
  return summary;
}

std::string describe(const Value& value) {
  switch (value.kind) {
    case Kind::kNone: return "None";
    case Kind::kBool: return "a boolean";
    case Kind::kInt:
    case Kind::kBigInt: return "a whole number";
    case Kind::kFloat: return "a number";
    case Kind::kString: return "a text";
    case Kind::kBytes: return "bytes";
    case Kind::kList: return "a list";
    case Kind::kTuple: return "a tuple";
    case Kind::kSet: return "a set";
    case Kind::kDict: return "a dictionary";
    case Kind::kPersistent: return "a storage";
    case Kind::kGlobal: return concat("the name ", printable(value.module), ".", printable(value.text));
    case Kind::kObject: break;
  }
  if (is_tensor(value)) return "a tensor";
  const Value& callee = *value.callee;
  if (!callee.is(Kind::kGlobal)) return "the result of a call (not made)";
  return concat("an object made by ", printable(callee.module), ".", printable(callee.text), " (not executed)");
}

TorchArchive::TorchArchive(std::shared_ptr<const FileBytes> file, FileFormat format)
    : file_(std::move(file)), place_(place_of(file_->path())), arena_(arena_bytes(*file_), place_) {
  if (format == FileFormat::kTorchZip) {
    open_zip();
  } else {
    open_legacy();
  }
}

// --- zip

void TorchArchive::open_zip() {
  zip_ = std::make_unique<ZipArchive>(file_->view(), place_);
  if (zip_->entries().empty()) fail<CheckpointError>(place_, ": is an empty zip archive");
  const std::string_view first = zip_->entries()[0].name;
  const size_t slash = first.find('/');
  prefix_ = slash == std::string_view::npos ? std::string() : std::string(first.substr(0, slash + 1));
  for (const ZipEntry& entry : zip_->entries()) {
    if (prefix_.empty() || entry.name.substr(0, prefix_.size()) != prefix_) {
      fail<CheckpointError>(place_, ": is a zip archive, but no PyTorch checkpoint: '", printable(entry.name),
                            "' is not below one folder with all else");
    }
  }
  if (zip_->find(prefix_ + "constants.pkl") != nullptr) {
    fail<CheckpointError>(place_,
                          ": is a TorchScript archive (a program), not a checkpoint; "
                          "save the state_dict of its module with torch.save");
  }
  const ZipEntry* pickle = zip_->find(prefix_ + "data.pkl");
  if (pickle == nullptr) {
    fail<CheckpointError>(place_, ": is a zip archive, but no PyTorch checkpoint: it lacks '", printable(prefix_),
                          "data.pkl'");
  }
  if (const ZipEntry* order = zip_->find(prefix_ + "byteorder")) {
    if (zip_->stored(*order) != "little") {
      fail<CheckpointError>(place_, ": has the byte order '", printable(zip_->stored(*order), 20),
                            "'; only little is supported");
    }
  }
  if (pickle->size > kMaxPickleBytes) {
    fail<CheckpointError>(place_, ": data.pkl has ", pickle->size, " bytes; at most ", kMaxPickleBytes, " are allowed");
  }
  std::string_view bytes;
  if (pickle->deflated) {
    unpacked_pickle_ = zip_->inflate(*pickle, std::min(kMaxPickleBytes, (size_t{16} << 20) + file_->size()));
    bytes = unpacked_pickle_;
  } else {
    bytes = zip_->stored(*pickle);
  }
  if (!zip_->crc_matches(*pickle)) fail<CheckpointError>(place_, ": data.pkl is damaged (its checksum differs)");
  size_t offset = 0;
  root_ = unpickle(bytes, offset, arena_, concat(place_, ": data.pkl"));
  if (offset != bytes.size()) {
    fail<CheckpointError>(place_, ": data.pkl has ", bytes.size() - offset, " bytes behind its end");
  }
  register_storages();
  for (auto& [key, storage] : storages_) {
    const ZipEntry* entry = zip_->find(concat(prefix_, "data/", key));
    if (entry == nullptr) continue;  // reported with the name of the tensor that needs it
    const std::string_view data = zip_->stored(*entry);
    storage.data = reinterpret_cast<const uint8_t*>(data.data());
    storage.bytes = data.size();
  }
}

// --- legacy: magic number, protocol, sys_info, the value, the sorted keys; then the storages

void TorchArchive::open_legacy() {
  const std::string_view bytes = file_->view();
  size_t offset = 0;
  unpickle(bytes, offset, arena_, place_);  // the magic number, which recognize_format has seen
  const Value* protocol = unpickle(bytes, offset, arena_, place_);
  if (!protocol->is(Kind::kInt) || protocol->integer != 1001) {
    fail<CheckpointError>(place_, ": is a PyTorch file of an unknown protocol (1001 is supported)");
  }
  const Value* system = unpickle(bytes, offset, arena_, place_);
  if (!system->is(Kind::kDict) || !truthy(system->find("little_endian"))) {
    fail<CheckpointError>(place_, ": was not written with little-endian numbers");
  }
  root_ = unpickle(bytes, offset, arena_, place_);
  const Value* keys = unpickle(bytes, offset, arena_, place_);
  register_storages();
  read_legacy_storages(offset, *keys);
}

void TorchArchive::read_legacy_storages(size_t offset, const Value& keys) {
  if (!keys.is(Kind::kList)) fail<CheckpointError>(place_, ": has no list of its storages");
  const std::string_view bytes = file_->view();
  for (const Value* key : keys.items) {
    const auto found = key->is(Kind::kString) ? storages_.find(key->text) : storages_.end();
    if (found == storages_.end()) {
      fail<CheckpointError>(place_, ": lists a storage that nothing refers to (",
                            key->is(Kind::kString) ? printable(key->text) : describe(*key), ")");
    }
    Storage& storage = found->second;
    if (!storage.unsupported.empty()) {
      fail<CheckpointError>(place_, ": the storage '", printable(key->text), "' has the unsupported type ",
                            printable(storage.unsupported));
    }
    if (storage.data != nullptr)
      fail<CheckpointError>(place_, ": lists the storage '", printable(key->text), "' twice");
    if (bytes.size() - offset < 8) fail<CheckpointError>(place_, ": is cut off at byte ", offset, ", in its storages");
    uint64_t numel = 0;
    for (size_t i = 8; i-- > 0;) numel = numel << 8 | static_cast<uint8_t>(bytes[offset + i]);
    offset += 8;
    const uint64_t size = info(storage.type).size;
    if (numel > (bytes.size() - offset) / size) {
      fail<CheckpointError>(place_, ": the storage '", printable(key->text), "' claims ", numel, " elements of ", size,
                            " bytes, but ", bytes.size() - offset, " bytes are left");
    }
    storage.data = reinterpret_cast<const uint8_t*>(bytes.data()) + offset;
    storage.bytes = numel * size;
    offset += storage.bytes;
  }
  if (offset != bytes.size()) {
    fail<CheckpointError>(place_, ": has ", bytes.size() - offset, " bytes behind its last storage");
  }
}

// --- storages and tensors

TorchArchive::Storage TorchArchive::read_persistent_id(const Value& id) const {
  const auto& items = id.items;
  if (!id.is(Kind::kTuple) || items.size() < 5 || !items[0]->is_string("storage") || !items[1]->is(Kind::kGlobal) ||
      !items[2]->is(Kind::kString) || !items[4]->is(Kind::kInt) || items[4]->integer < 0 ||
      items[2]->text.size() > kMaxKeyBytesOfStorage) {
    fail<CheckpointError>(place_, ": refers to something outside its pickle that is no storage");
  }
  Storage storage;
  storage.key = items[2]->text;
  storage.numel = items[4]->integer;
  const std::string_view name = items[1]->text;
  storage.untyped = name == "UntypedStorage";
  if (storage.untyped) return storage;
  const auto type = find_element_type(&ElementTypeInfo::torch_storage, name);
  if (type && (items[1]->module == "torch" || items[1]->module == "torch.cuda")) {
    storage.type = *type;
  } else {
    storage.unsupported = name;  // an error only for the tensor that needs it
  }
  return storage;
}

void TorchArchive::register_storages() {
  for (const Value& value : arena_.values()) {
    if (!value.is(Kind::kPersistent)) continue;
    const Storage storage = read_persistent_id(*value.args);
    arena_.charge(sizeof(Storage) + 8 * sizeof(void*));
    const auto [known, added] = storages_.emplace(storage.key, storage);
    const Storage& first = known->second;
    if (!added && (first.type != storage.type || first.untyped != storage.untyped || first.numel != storage.numel ||
                   first.unsupported != storage.unsupported)) {
      fail<CheckpointError>(place_, ": refers to the storage '", printable(storage.key), "' with two types or sizes (",
                            info(first.type).torch_dtype, " x ", first.numel, " and ", info(storage.type).torch_dtype,
                            " x ", storage.numel, ")");
    }
  }
}

const TorchArchive::Storage& TorchArchive::storage_of(const Value& persistent, const std::string& name) const {
  const Storage& storage = storages_.at(persistent.args->items[2]->text);
  if (!storage.unsupported.empty()) {
    fail<CheckpointError>(place_, ": tensor '", printable(name), "' has values of the unsupported type ",
                          printable(storage.unsupported));
  }
  if (storage.data == nullptr) {
    fail<CheckpointError>(place_, ": tensor '", printable(name), "' needs the storage '", printable(storage.key),
                          "', which the file lacks");
  }
  int64_t bytes = 0;
  if (!checked_multiply(storage.numel, info(storage.type).size, bytes) ||
      static_cast<uint64_t>(bytes) > storage.bytes) {
    fail<CheckpointError>(place_, ": tensor '", printable(name), "' needs the storage '", printable(storage.key),
                          "' with ", storage.numel, " elements of ", info(storage.type).torch_dtype,
                          ", but the file has ", storage.bytes, " bytes of it");
  }
  return storage;
}

TorchArchive::Part TorchArchive::part_of_storage(const Value& value, const std::string& name) const {
  const auto bad = [&](const auto&... parts) {
    fail<CheckpointError>(place_, ": tensor '", printable(name), "' ", parts...);
  };
  const auto call = tensor_call(value);
  const Storage& storage = storage_of(*call->storage, name);
  Part part{storage.type, storage.numel, storage.data};
  if (call->dtype != nullptr) {
    const auto type = call->dtype->is(Kind::kGlobal) && call->dtype->module == "torch"
                          ? find_element_type(&ElementTypeInfo::torch_dtype, call->dtype->text)
                          : std::nullopt;
    if (!type || !storage.untyped) bad("has an unsupported dtype");
    part.type = *type;
    part.numel /= info(*type).size;
  } else if (storage.untyped) {
    bad("lies in a storage without a type, and names none");
  }
  // The legacy layout may give a part of a storage: (key of the view, offset, size).
  const auto& id = call->storage->args->items;
  if (id.size() <= 5 || !id[5]->is(Kind::kTuple) || id[5]->items.empty()) return part;
  const auto& view = id[5]->items;
  const bool numbers = view.size() == 3 && view[1]->is(Kind::kInt) && view[2]->is(Kind::kInt);
  if (!numbers || view[1]->integer < 0 || view[2]->integer < 0 || view[1]->integer > part.numel ||
      view[2]->integer > part.numel - view[1]->integer) {
    bad("lies in a part of the storage '", printable(storage.key), "' that does not exist");
  }
  part.data += view[1]->integer * info(part.type).size;
  part.numel = view[2]->integer;
  return part;
}

TensorRecord TorchArchive::tensor(const Value& value, std::string name) const {
  const auto bad = [&](const auto&... parts) {
    fail<CheckpointError>(place_, ": tensor '", printable(name), "' ", parts...);
  };
  const auto call = tensor_call(value);
  if (!call) bad("is ", describe(value), ", not a tensor that can be read");
  const Part part = part_of_storage(value, name);
  TensorRecord record;
  record.type = part.type;
  if (!call->offset->is(Kind::kInt) || call->offset->integer < 0) bad("has a bad storage offset");
  if (!read_sizes(*call->shape, record.shape)) bad("has a bad shape (up to ", kMaxDimensions, " whole numbers >= 0)");
  if (!read_sizes(*call->strides, record.strides)) {
    bad("has bad strides (up to ", kMaxDimensions, " whole numbers >= 0)");
  }
  if (record.shape.size() != record.strides.size()) {
    bad("has ", record.shape.size(), " sizes but ", record.strides.size(), " strides");
  }
  int64_t count = 0, bytes = 0;
  if (!checked_numel(record.shape, count) || !checked_multiply(count, info(record.type).size, bytes)) {
    bad("has a shape whose size overflows");
  }
  record.data = part.data;
  int64_t last = call->offset->integer;  // index of the last element in the storage
  if (count > 0 && !add_reach(record.shape, record.strides, last)) bad("has strides that overflow");
  if (count > 0 && last >= part.numel) {
    bad("reaches to element ", last, " of its storage, which has ", part.numel);
  }
  if (count > 0) record.data += call->offset->integer * info(record.type).size;
  if (count == 0 || is_packed(record.shape, record.strides)) std::vector<int64_t>().swap(record.strides);
  record.name = std::move(name);
  return record;
}

}  // namespace mdm::checkpoint
