// The unpickler: a stack machine over the opcodes, with every length checked before it is used.
#include "checkpoint/pickle.h"

#include <cstring>

#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr size_t kMaxOpcodes = 50'000'000;
constexpr size_t kMaxStack = 1'000'000;

enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNoneOp = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobalOp = 'c',
  kDictOp = 'd',
  kEmptyDict = '}',
  kAppends = 'e',
  kBinGet = 'h',
  kInst = 'i',
  kLongBinGet = 'j',
  kListOp = 'l',
  kEmptyList = ']',
  kObj = 'o',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTupleOp = 't',
  kEmptyTuple = ')',
  kSetItems = 'u',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProto = 0x80,
  kNewObj = 0x81,
  kExt1 = 0x82,
  kExt2 = 0x83,
  kExt4 = 0x84,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kNewObjEx = 0x92,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
  kNextBuffer = 0x97,
  kReadonlyBuffer = 0x98
};

class Unpickler {
 public:
  Unpickler(std::string_view bytes, size_t offset, ValueArena& arena, const std::string& place)
      : bytes_(bytes), start_(offset), at_(offset), arena_(arena), place_(place) {}

  Value* run() {
    read_protocol();
    for (size_t count = 0;; ++count) {
      if (count == kMaxOpcodes) wrong("has more than ", kMaxOpcodes, " instructions");
      opcode_at_ = at_;
      const uint8_t opcode = byte();
      if (opcode == kStop) return finish();
      if (!scalar(opcode) && !text(opcode) && !container(opcode) && !call(opcode) && !memo(opcode)) refuse(opcode);
    }
  }

  size_t position() const { return at_; }

 private:
  template <typename... Parts>
  [[noreturn]] void wrong(const Parts&... parts) const {
    fail<CheckpointError>(place_, ": the pickle ", parts..., " (at its byte ", opcode_at_ - start_, ")");
  }

  [[noreturn]] void refuse(uint8_t opcode) const {
    if (opcode == kExt1 || opcode == kExt2 || opcode == kExt4) wrong("uses the extension registry, which is refused");
    if (opcode == kNextBuffer || opcode == kReadonlyBuffer) wrong("refers to out-of-band buffers, which are refused");
    static constexpr std::string_view kTextOpcodes = "FILPSVgp";
    if (kTextOpcodes.find(static_cast<char>(opcode)) != std::string_view::npos) {
      wrong("uses an instruction of protocol 0 ('", static_cast<char>(opcode), "'); protocols 2 to 5 are supported");
    }
    wrong("has the unknown instruction ", static_cast<int>(opcode));
  }

  // --- bytes

  void need(uint64_t count) const {
    if (count > bytes_.size() - at_) {
      wrong("asks for ", count, " bytes, but ", bytes_.size() - at_, " are left");
    }
  }

  uint8_t byte() {
    need(1);
    return static_cast<uint8_t>(bytes_[at_++]);
  }

  template <int kBytes>
  uint64_t number() {
    need(kBytes);
    uint64_t value = 0;
    for (int i = kBytes - 1; i >= 0; --i)
      value = value << 8 | static_cast<uint8_t>(bytes_[at_ + static_cast<size_t>(i)]);
    at_ += kBytes;
    return value;
  }

  std::string_view take(uint64_t count) {
    need(count);
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }

  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos || end - at_ > 4096) wrong("has a name that doesn't end within 4096 bytes");
    const std::string_view taken = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return taken;
  }

  // --- stack

  void push(Value* value) {
    if (stack_.size() >= kMaxStack) wrong("needs a stack of more than ", kMaxStack, " values");
    charge_growth(stack_);
    stack_.push_back(value);
  }

  // A growing vector holds its old and its new block at once.
  template <typename T>
  void charge_growth(const std::vector<T>& values) {
    if (values.size() == values.capacity()) arena_.charge(2 * sizeof(T) * values.size());
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  Value* pop() {
    if (stack_.size() <= floor()) wrong("takes a value from an empty stack");
    Value* value = stack_.back();
    stack_.pop_back();
    return value;
  }

  Value* top() const {
    if (stack_.size() <= floor()) wrong("looks at an empty stack");
    return stack_.back();
  }

  // Where the values above the last mark begin; removes the mark.
  size_t pop_mark() {
    if (marks_.empty()) wrong("closes a group that was never opened");
    const size_t begin = marks_.back();
    marks_.pop_back();
    return begin;
  }

  void collect(Value* container, size_t begin) {
    for (size_t i = begin; i < stack_.size(); ++i) arena_.append(container, stack_[i]);
    stack_.resize(begin);
  }

  // --- instructions, by family; each returns whether the opcode is one of its own

  void read_protocol() {
    opcode_at_ = at_;
    if (at_ > bytes_.size() || bytes_.size() - at_ < 2) wrong("is cut off");
    if (byte() != kProto) wrong("doesn't begin with a protocol number; protocols 2 to 5 are supported");
    const uint8_t protocol = byte();
    if (protocol < 2 || protocol > 5) {
      wrong("has protocol ", static_cast<int>(protocol), "; protocols 2 to 5 are supported");
    }
  }

  Value* finish() {
    if (!marks_.empty() || stack_.size() != 1) wrong("stops with ", stack_.size(), " values on its stack, not one");
    return stack_[0];
  }

  void push_int(int64_t number) {
    if (number >= 0 && number < 256) return push(arena_.small_int(static_cast<uint8_t>(number)));
    Value* value = arena_.make(Kind::kInt);
    value->integer = number;
    push(value);
  }

  void push_long(std::string_view digits) {
    if (digits.size() > 8) {
      Value* value = arena_.make(Kind::kBigInt);
      value->text = digits;
      return push(value);
    }
    uint64_t number = !digits.empty() && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = digits.size(); i-- > 0;) number = number << 8 | static_cast<uint8_t>(digits[i]);
    push_int(static_cast<int64_t>(number));
  }

  bool scalar(uint8_t opcode) {
    switch (opcode) {
      case kNoneOp: push(arena_.none()); return true;
      case kNewTrue: push(arena_.boolean(true)); return true;
      case kNewFalse: push(arena_.boolean(false)); return true;
      case kBinInt: push_int(static_cast<int32_t>(number<4>())); return true;
      case kBinInt1: push_int(byte()); return true;
      case kBinInt2: push_int(static_cast<int64_t>(number<2>())); return true;
      case kLong1: push_long(take(byte())); return true;
      case kLong4: push_long(take(number<4>())); return true;
      case kBinFloat: {
        uint64_t bits = __builtin_bswap64(number<8>());  // big-endian, alone among the numbers
        Value* value = arena_.make(Kind::kFloat);
        std::memcpy(&value->real, &bits, sizeof bits);
        push(value);
        return true;
      }
      default: return false;
    }
  }

  void push_text(Kind kind, std::string_view content) {
    Value* value = arena_.make(kind);
    value->text = content;
    push(value);
  }

  bool text(uint8_t opcode) {
    switch (opcode) {
      case kBinUnicode: push_text(Kind::kString, take(number<4>())); return true;
      case kShortBinUnicode: push_text(Kind::kString, take(byte())); return true;
      case kBinUnicode8: push_text(Kind::kString, take(number<8>())); return true;
      // Python 2's str; its keys and names are text.
      case kBinString: push_text(Kind::kString, take(number<4>())); return true;
      case kShortBinString: push_text(Kind::kString, take(byte())); return true;
      case kBinBytes: push_text(Kind::kBytes, take(number<4>())); return true;
      case kShortBinBytes: push_text(Kind::kBytes, take(byte())); return true;
      case kBinBytes8:
      case kByteArray8: push_text(Kind::kBytes, take(number<8>())); return true;
      default: return false;
    }
  }

  void push_tuple(size_t count) {
    Value* tuple = arena_.make(Kind::kTuple);
    if (stack_.size() - floor() < count) wrong("takes ", count, " values from a shorter stack");
    collect(tuple, stack_.size() - count);
    push(tuple);
  }

  void push_group(Kind kind) {
    const size_t begin = pop_mark();
    if (kind == Kind::kDict && (stack_.size() - begin) % 2 != 0) wrong("gives a dictionary a key without a value");
    Value* container = arena_.make(kind);
    collect(container, begin);
    push(container);
  }

  // Adds the values from stack position `begin` on to the container just below them.
  void extend(size_t begin, Kind kind) {
    if (begin <= floor()) wrong("adds items to nothing");
    Value* container = stack_[begin - 1];
    const bool pairs = kind == Kind::kDict;
    const size_t count = stack_.size() - begin;
    if (pairs && count % 2 != 0) wrong("sets a key without a value");
    if (container->kind == Kind::kObject) {
      if (!container->items.empty() && container->items_are_pairs != pairs) {
        wrong("both appends to an object and sets keys of it");
      }
      container->items_are_pairs = pairs;
    } else if (container->kind != kind) {
      wrong(pairs ? "sets a key of something that is no dictionary" : "adds items to something that holds none");
    }
    collect(container, begin);
  }

  bool container(uint8_t opcode) {
    switch (opcode) {
      case kMark:
        if (marks_.size() >= kMaxStack) wrong("opens more than ", kMaxStack, " groups");
        charge_growth(marks_);
        marks_.push_back(stack_.size());
        return true;
      case kPop:
        if (!marks_.empty() && marks_.back() == stack_.size()) {
          marks_.pop_back();  // as CPython does it
        } else {
          pop();
        }
        return true;
      case kPopMark: stack_.resize(pop_mark()); return true;
      case kDup: push(top()); return true;
      case kEmptyList: push(arena_.make(Kind::kList)); return true;
      case kEmptyDict: push(arena_.make(Kind::kDict)); return true;
      case kEmptySet: push(arena_.make(Kind::kSet)); return true;
      case kEmptyTuple: push(arena_.empty_tuple()); return true;
      case kTuple1: push_tuple(1); return true;
      case kTuple2: push_tuple(2); return true;
      case kTuple3: push_tuple(3); return true;
      case kTupleOp: push_group(Kind::kTuple); return true;
      case kListOp: push_group(Kind::kList); return true;
      case kDictOp: push_group(Kind::kDict); return true;
      case kFrozenSet: push_group(Kind::kSet); return true;
      case kAppend:
        top();
        extend(stack_.size() - 1, Kind::kList);
        return true;
      case kAppends: extend(pop_mark(), Kind::kList); return true;
      case kAddItems: extend(pop_mark(), Kind::kSet); return true;
      case kSetItem:
        if (stack_.size() - floor() < 3) wrong("sets a key, but its stack is too short");
        extend(stack_.size() - 2, Kind::kDict);
        return true;
      case kSetItems: extend(pop_mark(), Kind::kDict); return true;
      default: return false;
    }
  }

  void push_global(std::string_view module, std::string_view name) {
    Value* value = arena_.make(Kind::kGlobal);
    value->module = module;
    value->text = name;
    push(value);
  }

  void push_call(Value* callee, Value* args) {
    if (args->kind != Kind::kTuple) wrong("calls something with arguments that are no tuple");
    if (Value* meaning = interpret_call(*callee, *args, arena_)) return push(meaning);
    Value* object = arena_.make(Kind::kObject);
    object->callee = callee;
    object->args = args;
    push(object);
  }

  void build() {
    Value* state = pop();
    Value* target = top();
    if (target->kind != Kind::kObject && target->kind != Kind::kDict) {
      wrong("sets the state of something that has none");
    }
    target->state = state;
  }

  bool call(uint8_t opcode) {
    switch (opcode) {
      case kGlobalOp: {
        const std::string_view module = line();
        push_global(module, line());
        return true;
      }
      case kStackGlobal: {
        const Value* name = pop();
        const Value* module = pop();
        if (name->kind != Kind::kString || module->kind != Kind::kString) wrong("names a global by other than text");
        push_global(module->text, name->text);
        return true;
      }
      case kReduce:
      case kNewObj: {
        Value* args = pop();
        Value* callee = pop();
        push_call(callee, args);
        return true;
      }
      case kNewObjEx: {
        Value* keywords = pop();
        Value* args = pop();
        Value* callee = pop();
        Value* both = arena_.make(Kind::kTuple);
        arena_.append(both, args);
        arena_.append(both, keywords);
        push_call(callee, both);
        return true;
      }
      case kInst:
      case kObj: {
        std::string_view module, name;
        if (opcode == kInst) {
          module = line();
          name = line();
        }
        const size_t begin = pop_mark();
        if (opcode == kObj && begin == stack_.size()) wrong("makes an object of nothing");
        Value* args = arena_.make(Kind::kTuple);
        collect(args, begin + (opcode == kObj ? 1 : 0));
        if (opcode == kInst) push_global(module, name);
        Value* callee = pop();
        push_call(callee, args);
        return true;
      }
      case kBuild: build(); return true;
      case kBinPersId: {
        Value* value = arena_.make(Kind::kPersistent);
        value->args = pop();
        push(value);
        return true;
      }
      default: return false;
    }
  }

  void remember(uint64_t index) {
    // A pickler numbers its memo 0, 1, 2, ...: an index beyond the number of bytes read is a lie.
    if (index > at_ - start_) wrong("stores a value under the number ", index, ", higher than it can have counted");
    Value* value = top();
    if (index >= memo_.size()) {
      arena_.charge((index + 1 - memo_.size()) * 2 * sizeof(Value*));
      memo_.resize(index + 1, nullptr);
    }
    if (memo_[index] == nullptr) ++remembered_;
    memo_[index] = value;
  }

  void recall(uint64_t index) {
    if (index >= memo_.size() || memo_[index] == nullptr)
      wrong("asks for the value ", index, ", which it never stored");
    push(memo_[index]);
  }

  bool memo(uint8_t opcode) {
    switch (opcode) {
      case kBinPut: remember(byte()); return true;
      case kLongBinPut: remember(number<4>()); return true;
      case kMemoize: remember(remembered_); return true;
      case kBinGet: recall(byte()); return true;
      case kLongBinGet: recall(number<4>()); return true;
      case kProto: byte(); return true;
      case kFrame: need(number<8>()); return true;  // only a hint of how much to read ahead
      default: return false;
    }
  }

  std::string_view bytes_;
  size_t start_, at_, opcode_at_ = 0;
  ValueArena& arena_;
  const std::string& place_;
  std::vector<Value*> stack_, memo_;
  std::vector<size_t> marks_;
  size_t remembered_ = 0;
};

}  // namespace

Value* unpickle(std::string_view bytes, size_t& offset, ValueArena& arena, const std::string& place) {
  Unpickler unpickler(bytes, offset, arena, place);
  Value* root = unpickler.run();
  offset = unpickler.position();
  return root;
}

}  // namespace mdm::checkpoint
