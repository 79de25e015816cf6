// Sorting the names in a pickle into data, unknown and suspicious. This only informs people: reading is
// safe because nothing is ever imported, not because of this list.
#include "checkpoint/pickled_names.h"

#include <algorithm>
#include <initializer_list>
#include <unordered_map>

#include "checkpoint/element_type.h"
#include "checkpoint/value_json.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_data(std::string_view module, std::string_view name) {
  if (module == "torch._utils") return starts_with(name, "_rebuild_");
  if (module == "torch" || module == "torch.cuda") {
    return ends_with(name, "Storage") || one_of(name, {"Size", "device", "strided", "contiguous_format"}) ||
           find_element_type(&ElementTypeInfo::torch_dtype, name).has_value();
  }
  if (module == "torch._tensor") return name == "_rebuild_from_type_v2";
  if (module == "torch.nn.parameter") return one_of(name, {"Parameter", "Buffer"});
  if (module == "collections") return one_of(name, {"OrderedDict", "defaultdict"});
  if (module == "_codecs") return name == "encode";
  if (module == "numpy") return one_of(name, {"dtype", "ndarray"});
  if (module == "numpy.core.multiarray" || module == "numpy._core.multiarray") {
    return one_of(name, {"scalar", "_reconstruct"});
  }
  if (module == "builtins" || module == "__builtin__") {
    return one_of(name, {"set", "frozenset", "bytes", "bytearray", "list", "dict", "tuple", "int", "float", "str",
                         "bool", "complex", "slice", "range", "object"});
  }
  return false;
}

bool is_suspicious(std::string_view module, std::string_view name) {
  if (module == "builtins" || module == "__builtin__") {
    return one_of(name, {"eval", "exec", "execfile", "compile", "open", "__import__", "getattr", "setattr", "delattr",
                         "apply", "globals", "locals", "vars", "input", "breakpoint", "memoryview", "type"});
  }
  const std::string_view package = module.substr(0, module.find('.'));
  if (package == "torch") {
    return one_of(name, {"load", "jit_load"}) || starts_with(module, "torch.hub") || starts_with(module, "torch.jit") ||
           starts_with(module, "torch.utils") || starts_with(module, "torch.package") ||
           starts_with(module, "torch.multiprocessing") || starts_with(module, "torch.distributed");
  }
  if (package == "numpy") return one_of(name, {"load", "fromfile", "memmap"}) || module != "numpy";
  return one_of(package, {"os",
                          "posix",
                          "posixpath",
                          "nt",
                          "ntpath",
                          "sys",
                          "subprocess",
                          "commands",
                          "socket",
                          "shutil",
                          "importlib",
                          "imp",
                          "runpy",
                          "pty",
                          "webbrowser",
                          "ctypes",
                          "_ctypes",
                          "cffi",
                          "pickle",
                          "_pickle",
                          "cPickle",
                          "marshal",
                          "shelve",
                          "dill",
                          "cloudpickle",
                          "joblib",
                          "types",
                          "code",
                          "codeop",
                          "pdb",
                          "bdb",
                          "trace",
                          "timeit",
                          "cProfile",
                          "profile",
                          "asyncio",
                          "multiprocessing",
                          "concurrent",
                          "threading",
                          "_thread",
                          "signal",
                          "http",
                          "urllib",
                          "urllib2",
                          "urllib3",
                          "requests",
                          "httpx",
                          "aiohttp",
                          "ssl",
                          "ftplib",
                          "smtplib",
                          "telnetlib",
                          "xmlrpc",
                          "pip",
                          "ensurepip",
                          "setuptools",
                          "venv",
                          "tempfile",
                          "io",
                          "_io",
                          "functools",
                          "operator",
                          "_operator",
                          "inspect",
                          "gc",
                          "atexit",
                          "platform",
                          "linecache",
                          "pkgutil",
                          "pydoc",
                          "doctest",
                          "unittest",
                          "test",
                          "idlelib",
                          "lib2to3",
                          "zipimport",
                          "site",
                          "nturl2path"});
}

bool is_getattr(const Value& value) {
  return value.is_global("builtins", "getattr") || value.is_global("__builtin__", "getattr");
}

// Names may be long, and shared by many values.
std::string short_name(const Value& global) {
  return concat(global.module.substr(0, 200), ".", global.text.substr(0, 200));
}

}  // namespace

std::vector<PickledName> pickled_names(const ValueArena& arena) {
  // getattr(an enum of ours, name) is data; any other use is not.
  bool only_enums = true;
  std::unordered_map<std::string, PickledName> names;
  std::vector<const Value*> enums;
  for (const Value& value : arena.values()) {
    if (!value.is(Kind::kObject)) continue;
    const bool member = !enum_member(value).empty();
    if (is_getattr(*value.callee)) only_enums = only_enums && member;
    if (member) enums.push_back(is_getattr(*value.callee) ? value.args->items[0] : value.callee);
  }
  for (const Value& value : arena.values()) {
    if (!value.is(Kind::kGlobal)) continue;
    if (names.size() >= 10'000) break;  // enough to judge any file
    PickledName& entry = names[short_name(value)];
    if (entry.count++ > 0) continue;
    if (is_data(value.module, value.text) || is_config_class(value) || (is_getattr(value) && only_enums)) {
      entry.verdict = NameVerdict::kData;
    } else if (is_suspicious(value.module, value.text)) {
      entry.verdict = NameVerdict::kSuspicious;
    }
  }
  for (const Value* type : enums) {
    const auto known = names.find(short_name(*type));
    if (known != names.end()) known->second.verdict = NameVerdict::kData;
  }
  std::vector<PickledName> list;
  for (auto& [name, entry] : names) {
    entry.name = name;
    list.push_back(std::move(entry));
  }
  std::sort(list.begin(), list.end(), [](const PickledName& a, const PickledName& b) {
    return a.verdict != b.verdict ? a.verdict > b.verdict : a.name < b.name;
  });
  return list;
}

}  // namespace mdm::checkpoint
