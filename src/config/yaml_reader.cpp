// Builds a tree from yaml-cpp's events, not from its nodes: those would hide duplicate keys and keep the
// first, where Python keeps the last.
#include "config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <sstream>
#include <utility>

#include "mdm/core/error.h"

namespace mdm::settings {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 100000;
constexpr size_t kMaxMapKeys = 1000;  // keys are looked up one by one

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& name, std::vector<std::string>* warnings)
      : source_(std::make_shared<const std::string>(name)), warnings_(warnings) {}

  Value take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (wants_key()) refuse(mark, "a key is empty");
    add(Value(), mark);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "an alias (*name) is used; aliases are not read, write the value out");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    refuse_anchor(mark, anchor);
    const bool quoted = check_tag(mark, tag);
    if (wants_key()) {
      take_key(mark, text, quoted);
      return;
    }
    if (!quoted && (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")) {
      add(Value(), mark);
    } else {
      add(scalar(text, Origin()), mark);
    }
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Value::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Value::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    Value value;
    std::string key;
    bool has_key = false;
  };

  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& what) {
    fail<ConfigError>(*source_, ":", mark.line + 1, ": ", what);
  }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "an anchor (&name) is used; anchors are not read, write the value out");
  }

  // Whether the scalar was quoted (yaml-cpp then says "!") or tagged as text.
  bool check_tag(const YAML::Mark& mark, const std::string& tag) {
    static constexpr const char* kPlain[] = {"",
                                             "?",
                                             "tag:yaml.org,2002:int",
                                             "tag:yaml.org,2002:float",
                                             "tag:yaml.org,2002:bool",
                                             "tag:yaml.org,2002:null",
                                             "tag:yaml.org,2002:seq",
                                             "tag:yaml.org,2002:map"};
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return true;
    if (std::find(std::begin(kPlain), std::end(kPlain), tag) == std::end(kPlain)) {
      refuse(mark, "the tag " + printable(tag) + " is not read; only plain values are");
    }
    return false;
  }

  bool wants_key() const { return !stack_.empty() && stack_.back().value.is_map() && !stack_.back().has_key; }

  void take_key(const YAML::Mark& mark, const std::string& text, bool quoted) {
    if (text == "<<" && !quoted) refuse(mark, "a merge key (<<) is used; merge keys are not read");
    if (text.find('.') != std::string::npos) {
      refuse(mark, "the key \"" + printable(text) + "\" has a dot; write it as nested keys");
    }
    Frame& frame = stack_.back();
    frame.key = text;
    std::replace(frame.key.begin(), frame.key.end(), '-', '_');
    if (frame.key != text) {
      warnings_->push_back(concat(*source_, ":", mark.line + 1, ": \"", printable(text), "\" is read as \"",
                                  printable(frame.key), "\""));
    }
    frame.has_key = true;
    key_line_ = mark.line + 1;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Value::Kind kind) {
    refuse_anchor(mark, anchor);
    check_tag(mark, tag);
    if (wants_key()) refuse(mark, "a key is a list or map; keys must be names");
    if (stack_.size() >= kMaxDepth) refuse(mark, "nested too deep");
    Frame frame;
    frame.value.kind = kind;
    frame.value.origin = place(mark);
    stack_.push_back(std::move(frame));
  }

  void close() {
    Value value = std::move(stack_.back().value);
    stack_.pop_back();
    attach(std::move(value));
  }

  Origin place(const YAML::Mark& mark) const {
    const bool in_map = !stack_.empty() && stack_.back().value.is_map();
    return {source_, in_map ? key_line_ : mark.line + 1};
  }

  void add(Value value, const YAML::Mark& mark) {
    value.origin = place(mark);
    attach(std::move(value));
  }

  void attach(Value value) {
    if (++values_ > kMaxValues) {
      fail<ConfigError>(value.origin.text(), ": more than ", kMaxValues, " values in one file");
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return;
    }
    Frame& frame = stack_.back();
    if (!frame.value.is_map()) {
      frame.value.items.push_back(std::move(value));
      return;
    }
    if (frame.value.keys.size() >= kMaxMapKeys) {
      fail<ConfigError>(value.origin.text(), ": more than ", kMaxMapKeys, " keys in one map");
    }
    if (const Value* first = frame.value.find(frame.key)) {
      warnings_->push_back(concat(value.origin.text(), ": \"", printable(frame.key), "\" is already on line ",
                                  first->origin.line, "; the last one counts"));
    }
    frame.value.set(frame.key, std::move(value));
    frame.has_key = false;
  }

  std::shared_ptr<const std::string> source_;
  std::vector<std::string>* warnings_;
  std::vector<Frame> stack_;
  Value root_;
  size_t values_ = 0;
  int key_line_ = 0;
};

}  // namespace

Value read_yaml(std::string_view text, const std::string& name, std::vector<std::string>* warnings) {
  if (text.size() > kMaxYamlBytes) {
    fail<ConfigError>(name, ": ", text.size(), " bytes; a config file may have at most ", kMaxYamlBytes);
  }
  if (text.find('\0') != std::string_view::npos) fail<ConfigError>(name, ": holds a zero byte; this is no text");
  TreeBuilder builder(name, warnings);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    Value root = builder.take();
    TreeBuilder rest(name, warnings);
    if (parser.HandleNextDocument(rest)) fail<ConfigError>(name, ": holds more than one YAML document");
    if (root.is_null()) root.kind = Value::Kind::kMap;
    if (!root.is_map()) fail<ConfigError>(name, ": must hold `key: value` lines at the top level");
    return root;
  } catch (const ConfigError&) {
    throw;
  } catch (const YAML::Exception& error) {
    fail<ConfigError>(name, ":", error.mark.line + 1, ": not readable as YAML: ", printable(error.msg));
  } catch (const std::exception& error) {
    fail<ConfigError>(name, ": not readable as YAML: ", printable(error.what()));
  }
}

}  // namespace mdm::settings
