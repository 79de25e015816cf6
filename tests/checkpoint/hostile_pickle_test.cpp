// Hostile pickles: programs, bombs, lies about storages and tensors (classes P1 to P4).
#include <gtest/gtest.h>

#include <chrono>
#include <sstream>

#include "checkpoint/builders.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint_tests {
namespace {

const std::string kFloats(16, '\0');  // four floats

// A state dict of one float tensor of four values, given its pickled form.
std::string one_tensor(const std::string& tensor) { return pickle(pickle_dict({{"w", tensor}})); }

class HostilePickle : public testing::Test {
 protected:
  std::filesystem::path zip(const std::string& pickle_bytes) {
    return folder_.write("model.pth", pth(pickle_bytes, {{"0", kFloats}}).bytes());
  }
  void refused(const std::string& pickle_bytes, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(zip(pickle_bytes), fragment);
    // The same in the legacy layout.
    const std::string keys = pickle("](" + pickle_text("0") + "e");
    const auto legacy = folder_.write("old.pth", legacy_pth(pickle_bytes, keys, little(4, 8) + kFloats));
    const Outcome outcome = expect_bounded(legacy);
    EXPECT_FALSE(outcome.opened);
    EXPECT_NE(outcome.error.find("old.pth"), std::string::npos) << outcome.error;
  }
  TemporaryFolder folder_;
};

// --- P1: code

TEST_F(HostilePickle, NeverRunsAnything) {
  const auto sentinel = folder_.path() / "was_run";
  const std::string command = pickle_text("touch " + sentinel.string());
  const std::string system = pickle_global("os", "system") + pickle_tuple({command}) + "R";
  const std::string stack_system = "\x8c\x02os\x8c\x06system\x93" + pickle_tuple({command}) + "R";
  const std::string inst = "(" + command + "ios\nsystem\n";
  const std::string obj = "(" + pickle_global("posix", "system") + command + "o";
  const std::string eval = pickle_global("builtins", "eval") + pickle_tuple({command}) + "R";
  const std::string get =
      pickle_global("builtins", "getattr") + pickle_tuple({pickle_global("os", "path"), pickle_text("join")}) + "R";
  const std::string built = pickle_global("subprocess", "Popen") + ")\x81}" + pickle_text("args") + command + "sb";
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1});
  for (const auto& attack : {system, stack_system, inst, obj, eval, get, built}) {
    // As the whole file, in the state dict, beside it, and as the storage or its type.
    refused(pickle(attack), "not a dictionary of named tensors");
    refused(pickle(pickle_dict({{"state_dict", pickle_dict({{"w", tensor}, {"x", attack}})}})), "not executed");
    refused(
        pickle(pickle_dict({{"model", pickle_dict({{"w", attack}})}, {"state_dict", pickle_dict({{"w", attack}})}})),
        "not executed");
    refused(one_tensor(pickle_tensor(attack, 0, {4}, {1})), "not a tensor that can be read");
    const auto beside = zip(pickle(pickle_dict({{"state_dict", pickle_dict({{"w", tensor}})}, {"args", attack}})));
    const TensorFile file = TensorFile::open(beside);
    EXPECT_EQ(file.entries().size(), 1U);
    EXPECT_NE(file.metadata_json().find("__class__"), std::string::npos) << file.metadata_json();

    const Inspection inspection = inspect_checkpoint(beside);
    ASSERT_FALSE(inspection.names.empty());
    EXPECT_EQ(inspection.names[0].verdict, NameVerdict::kSuspicious) << inspection.names[0].name;
    std::ostringstream listing;
    print_inspection(inspection, listing);
    EXPECT_NE(listing.str().find("SUSPICIOUS"), std::string::npos) << listing.str();
    const Inspection whole = inspect_checkpoint(zip(pickle(attack)));
    EXPECT_FALSE(whole.problem.empty());
    EXPECT_EQ(whole.names[0].verdict, NameVerdict::kSuspicious);
  }
  EXPECT_FALSE(std::filesystem::exists(sentinel));
}

TEST_F(HostilePickle, RefusesWhatItDoesNotKnow) {
  refused(pickle("\x82\x01"), "extension registry");
  refused(pickle("\x83\x01\x01"), "extension registry");
  refused(pickle("\x84" + little(1, 4)), "extension registry");
  refused(pickle("\x97"), "out-of-band");
  refused(pickle("\xff"), "unknown instruction 255");
  refused(pickle("I1\n"), "protocol 0");
  refused(pickle("P0\n"), "protocol 0");
  refused(std::string("\x80\x01}.", 4), "protocol 1");
  refused(std::string("\x80\x06}.", 4), "protocol 6");
  refused("}.", "protocol");
  refused("\x80", "cut off");
  refused("\x80\x02", "are left");
  refused(pickle("Np0\n"), "protocol 0");
}

TEST_F(HostilePickle, RefusesStackTricks) {
  refused(pickle("0"), "empty stack");
  refused(pickle("R"), "empty stack");
  refused(pickle("t"), "never opened");
  refused(pickle("N(0u"), "never opened");
  refused(pickle("(N}u"), "nothing");
  refused(pickle("NN"), "2 values");
  refused(pickle("N("), "stops with");
  refused(pickle("h\x05"), "never stored");
  refused(pickle("j" + little(1U << 31, 4)), "never stored");
  refused(pickle("N(NNu"), "no dictionary");
  refused(pickle("N(Ne"), "holds none");
  refused(pickle("}(Nu"), "without a value");
  refused(pickle("(Nd"), "without a value");
  refused(pickle("NNb"), "has none");
  refused(pickle("NNR"), "no tuple");
  refused(pickle("NN\x93"), "other than text");
  refused(pickle("NQ"), "no storage");
  refused(pickle(pickle_tuple({pickle_text("module"), pickle_text("x")}) + "Q"), "no storage");
}

// --- P2: bombs

TEST_F(HostilePickle, BoundsLengthsBeforeItAllocates) {
  refused(pickle("Nr" + little(0x7fffffff, 4)), "higher than it can have counted");
  refused(pickle("X" + little(0xffffffff, 4)), "are left");
  refused(pickle("B" + little(0xffffffff, 4)), "are left");
  refused(pickle("\x8d" + little(~uint64_t{0}, 8)), "are left");
  refused(pickle("\x96" + little(uint64_t{1} << 63, 8)), "are left");
  refused(pickle("\x8b" + little(1U << 31, 4)), "are left");
  refused(pickle("\x95" + little(uint64_t{1} << 40, 8)), "are left");
  refused(pickle("T" + little(1U << 31, 4)), "are left");
  refused(pickle("c" + std::string(5000, 'a')), "4096");
}

TEST_F(HostilePickle, DoublingTuplesCostNothing) {
  std::string doubling = "N";
  for (int i = 0; i < 60; ++i) doubling += "2\x86";  // the same value twice in a pair
  const auto path = zip(pickle(pickle_dict({{"laugh", doubling}})));
  const Outcome outcome = expect_bounded(path);
  EXPECT_TRUE(outcome.opened) << outcome.error;
}

TEST_F(HostilePickle, DepthAndCyclesAreHarmless) {
  std::string deep;
  for (int i = 0; i < 900'000; ++i) deep += "]";
  deep += "N";
  for (int i = 0; i < 900'000; ++i) deep += "a";
  for (const std::string& value : {deep,
                                   std::string("]q\x05h\x05"
                                               "a"),
                                   std::string("}q\x05X\x01\x00\x00\x00kh\x05s", 11)}) {
    const auto path = zip(pickle(pickle_dict({{"x", value}})));
    expect_bounded(path);
    std::ostringstream listing;
    try {
      print_inspection(inspect_checkpoint(path), listing);
    } catch (const CheckpointError& error) {
      listing << error.what();
    }
    EXPECT_LT(listing.str().size(), 20'000U);
  }
  // A dictionary that is its own state dict.
  expect_bounded(zip(pickle("}q\x05" + pickle_text("state_dict") + "h\x05s")));
  expect_bounded(zip(pickle("}q\x05" + pickle_text("model") + "h\x05s")));
}

TEST_F(HostilePickle, ManyValuesAreBounded) {
  const auto many = [&](const std::string& piece, size_t count) {
    std::string out;
    out.reserve(piece.size() * count);
    for (size_t i = 0; i < count; ++i) out += piece;
    return out;
  };
  expect_bounded(zip(pickle(pickle_dict({{"x", "](" + many("]", 900'000) + "e"}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", "](" + many("}", 3'000'000) + "e"}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", "](" + many("N", 900'000) + "e"}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", many("(", 900'000)}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", "N" + many("0N", 5'000'000)}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", "N" + many("]0", 2'000'000)}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", "](" + many("\x8c\x00", 400'000) + "e"}}))));
  expect_bounded(zip(pickle(pickle_dict({{"x", "](" + many("ca\nb\n", 400'000) + "e"}}))));
  // A big whole number of 100,000 bytes must not be turned into decimal digits.
  expect_bounded(zip(pickle(pickle_dict({{"x", "\x8b" + little(100'000, 4) + std::string(100'000, '\x11')}}))));
}

TEST_F(HostilePickle, ManyTensorsAreBounded) {
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1});
  std::string body = tensor + "q\x01" + "0}(";
  for (int i = 0; i < 95'000; ++i) body += pickle_text(std::to_string(i)) + "h\x01";
  const Outcome outcome = expect_bounded(zip(pickle(body + "u")));
  EXPECT_TRUE(outcome.opened) << outcome.error;
}

// One large value, named again and again by two bytes each.
TEST_F(HostilePickle, SharedValuesAreNotCopied) {
  const auto repeated = [](const std::string& piece, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += piece;
    return out;
  };
  const std::string text = pickle_text(std::string(4 << 20, 'a') + "\xff") + "q\x01" + "0";
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1}) + "q\x02" + "0";
  const std::string name = pickle_text(std::string(4000, 'n')) + "q\x03" + "0";
  const auto inspected = [&](const std::string& piece) {
    const auto path = zip(pickle(piece));
    const Outcome outcome = expect_bounded(path);
    const auto start = std::chrono::steady_clock::now();
    std::ostringstream listing;
    try {
      print_inspection(inspect_checkpoint(path), listing);
    } catch (const CheckpointError&) {
    }
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10);
    return outcome;
  };
  inspected(text + "}(" + repeated("h\x01N", 50'000) + "u");                             // as keys
  inspected(text + "}(" + repeated("h\x01\x85N", 50'000) + "u");                         // as keys that are no text
  inspected(text + "}(" + pickle_text("x") + "](" + repeated("h\x01", 100'000) + "eu");  // as values
  inspected(text + "}(" + pickle_text("x") + "](" + repeated("h\x01h\x01\x93", 50'000) + "eu");  // as names
  inspected(text + pickle_global("_codecs", "encode") + "q\x04" + "0" + pickle_text("latin1") + "q\x05" + "0}(" +
            pickle_text("x") + "](" + repeated("h\x04h\x01h\x05\x86R", 20'000) + "eu");
  const std::string storage = pickle_tuple({pickle_text("storage"), pickle_global("torch", "FloatStorage"), "h\x01",
                                            pickle_text("cpu"), pickle_int(4)}) +
                              "q\x06" + "0";
  EXPECT_FALSE(inspected(text + storage + "}(" + pickle_text("x") + "](" + repeated("h\x06Q", 50'000) + "eu").opened);
  EXPECT_FALSE(inspected(tensor + name + "}(" + repeated("h\x03h\x02", 100'000) + "u").opened);

  // A state dict that is also the value of many other keys, and dictionaries that hold themselves.
  std::string state = "}q\x07(";
  for (int i = 0; i < 50'000; ++i) state += pickle_text(std::to_string(i)) + "h\x02";
  std::string keys;
  for (int i = 0; i < 50'000; ++i) keys += pickle_text("k" + std::to_string(i)) + "h\x07";
  EXPECT_TRUE(inspected(tensor + "}(" + pickle_text("state_dict") + state + "u" + keys + "u").opened);
  inspected("}q\x07(" + keys + "u");
}

// --- P3: storages

TEST_F(HostilePickle, RefusesLiesAboutStorages) {
  const auto tensor_in = [&](const std::string& storage) { return one_tensor(pickle_tensor(storage, 0, {4}, {1})); };
  const auto only_zip = [&](const std::string& bytes, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(zip(bytes), fragment);
  };
  only_zip(tensor_in(pickle_storage("FloatStorage", "0", 5)), "tensor 'w' needs the storage '0' with 5 elements");
  only_zip(tensor_in(pickle_storage("DoubleStorage", "0", 4)), "the file has 16 bytes");
  only_zip(tensor_in(pickle_storage("FloatStorage", "0", INT64_MAX)), "the file has 16 bytes");
  only_zip(tensor_in(pickle_storage("FloatStorage", "1", 4)), "which the file lacks");
  only_zip(tensor_in(pickle_storage("FloatStorage", "../0", 4)), "which the file lacks");
  only_zip(tensor_in(pickle_storage("FloatStorage", "0", -4)), "no storage");
  only_zip(tensor_in(pickle_storage("ComplexFloatStorage", "0", 2)), "unsupported type ComplexFloatStorage");
  const std::string a = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1});
  const std::string b = pickle_tensor(pickle_storage("IntStorage", "0", 4), 0, {4}, {1});
  const std::string c = pickle_tensor(pickle_storage("FloatStorage", "0", 3), 0, {3}, {1});
  only_zip(pickle(pickle_dict({{"a", a}, {"b", b}})), "two types or sizes");
  only_zip(pickle(pickle_dict({{"a", a}, {"c", c}})), "two types or sizes");
  only_zip(pickle(pickle_dict({{"a", a}, {"a", a}})), "twice");
}

TEST_F(HostilePickle, RefusesLiesInLegacyStorages) {
  const std::string one = one_tensor(pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1}));
  const std::string keys = pickle("](" + pickle_text("0") + "e");
  const auto refuse = [&](const std::string& bytes, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(folder_.write("old.pth", bytes), fragment);
  };
  EXPECT_TRUE(expect_bounded(folder_.write("old.pth", legacy_pth(one, keys, little(4, 8) + kFloats))).opened);
  refuse(legacy_pth(one, keys, little(5, 8) + kFloats), "claims 5 elements");
  refuse(legacy_pth(one, keys, little(~uint64_t{0}, 8) + kFloats), "are left");
  refuse(legacy_pth(one, keys, little(3, 8) + kFloats.substr(4)), "the file has 12 bytes");
  refuse(legacy_pth(one, keys, little(4, 8) + kFloats + "x"), "behind its last storage");
  refuse(legacy_pth(one, keys, "123"), "cut off");
  refuse(legacy_pth(one, pickle("](" + pickle_text("0") + pickle_text("0") + "e"), little(4, 8) + kFloats), "twice");
  refuse(legacy_pth(one, pickle("](" + pickle_text("9") + "e"), little(4, 8) + kFloats), "nothing refers to");
  refuse(legacy_pth(one, pickle("N"), little(4, 8) + kFloats), "no list");
  refuse(legacy_pth(one, pickle("]"), ""), "lacks");
  refuse(legacy_pth(one, "", ""), "cut off");
  // A part of a storage that does not exist: (view key, offset, size).
  const auto view = [&](int64_t offset, int64_t size) {
    const std::string storage = pickle_tuple({pickle_text("storage"), pickle_global("torch", "FloatStorage"),
                                              pickle_text("0"), pickle_text("cpu"), pickle_int(4),
                                              pickle_tuple({pickle_text("v"), pickle_int(offset), pickle_int(size)})}) +
                                "Q";
    return legacy_pth(one_tensor(pickle_tensor(storage, 0, {2}, {1})), keys, little(4, 8) + kFloats);
  };
  EXPECT_TRUE(expect_bounded(folder_.write("old.pth", view(2, 2))).opened);
  refuse(view(3, 2), "does not exist");
  refuse(view(-1, 2), "does not exist");
  refuse(view(0, 1), "reaches to element 1");
  refuse(view(INT64_MAX, INT64_MAX), "does not exist");
}

// --- P4: tensors

TEST_F(HostilePickle, RefusesLiesAboutTensors) {
  const std::string storage = pickle_storage("FloatStorage", "0", 4);
  const auto lie = [&](int64_t offset, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                       const std::string& fragment) {
    refused(one_tensor(pickle_tensor(storage, offset, sizes, strides)), fragment);
  };
  constexpr int64_t kBig = INT64_MAX;
  lie(-1, {4}, {1}, "bad storage offset");
  lie(0, {-4}, {1}, "bad shape");
  lie(0, {4}, {-1}, "bad strides");
  lie(1, {4}, {1}, "reaches to element 4");
  lie(4, {1}, {1}, "reaches to element 4");
  lie(0, {2}, {4}, "reaches to element 4");
  lie(kBig, {2}, {1}, "overflow");
  lie(0, {kBig, 4}, {1, 1}, "overflows");
  lie(0, {kBig}, {1}, "overflows");
  lie(0, {3, 3}, {kBig, kBig}, "overflow");
  lie(0, {int64_t{1} << 32, int64_t{1} << 32}, {0, 0}, "overflows");
  lie(0, {int64_t{1} << 32, int64_t{1} << 32, 0}, {0, 0, 0}, "overflows");
  lie(0, {4}, {}, "1 sizes but 0 strides");
  lie(0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1), "bad shape");
  const std::string floats = pickle_global("torch._utils", "_rebuild_tensor_v2") +
                             pickle_tuple({storage, pickle_int(0), pickle_tuple({"G" + std::string(8, '\0')}),
                                           pickle_tuple({pickle_int(1)}), "\x89", "N"}) +
                             "R";
  refused(one_tensor(floats), "bad shape");
  const std::string no_storage = pickle_global("torch._utils", "_rebuild_tensor_v2") +
                                 pickle_tuple({"N", pickle_int(0), pickle_tuple({}), pickle_tuple({}), "\x89", "N"}) +
                                 "R";
  refused(pickle(pickle_dict({{"state_dict", pickle_dict({{"w", no_storage}})}})), "not a tensor that can be read");
}

TEST_F(HostilePickle, TakesHarmlessOddities) {
  const std::string storage = pickle_storage("FloatStorage", "0", 4);
  const auto opens = [&](const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
    const Outcome outcome = expect_bounded(zip(one_tensor(pickle_tensor(storage, 0, sizes, strides))));
    EXPECT_TRUE(outcome.opened) << outcome.error;
  };
  opens({}, {});
  opens({0}, {1});
  opens({0, 1000000}, {99, 99});
  opens({2, 2}, {1, 1});                 // overlapping
  opens({1, 4}, {1000000000, 1});        // the stride of a size of one is never taken
  opens({int64_t{1} << 40, 4}, {0, 1});  // expanded: 4 values in the file, looked at, never copied
}

}  // namespace
}  // namespace mdm::checkpoint_tests
