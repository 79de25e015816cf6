// What scenes of shapes say: names, captions, and which captions are held out of training.
#include "mdm/demo/shapes.h"

#include <algorithm>

#include "mdm/core/error.h"
#include "mdm/core/random.h"

namespace mdm {
namespace {

constexpr const char* kColorNames[kShapeColors] = {"red",  "orange", "yellow", "green",
                                                   "cyan", "blue",   "purple", "black"};
constexpr const char* kShapeNames[kShapes] = {"circle", "square", "triangle", "star", "cross", "heart", "ring"};
constexpr Relation kRelations[] = {Relation::kLeftOf, Relation::kRightOf, Relation::kAbove, Relation::kBelow};
constexpr std::array<uint8_t, 3> kColors[kShapeColors] = {{215, 30, 45},  {250, 140, 25}, {245, 225, 40}, {40, 165, 65},
                                                          {25, 185, 215}, {35, 90, 205},  {150, 45, 160}, {25, 25, 25}};

constexpr uint64_t kSplitSeed = 2310;
constexpr uint64_t kHeldOutOneIn = 8;

std::string object_caption(ObjectKind kind) {
  const std::string color = color_name(kind.color);
  const char* article = color.find_first_of("aeiou") == 0 ? "an " : "a ";
  return article + color + " " + shape_name(kind.shape);
}

std::vector<std::string> words_of(std::string_view caption) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : caption) {
    if (c == ' ') {
      if (!word.empty()) words.push_back(std::move(word));
      word.clear();
    } else {
      word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

// Takes the words of a caption one by one.
class CaptionParser {
 public:
  explicit CaptionParser(std::string_view caption) : caption_(caption), words_(words_of(caption)) {}

  SceneText parse() {
    SceneText text;
    text.objects.push_back(object());
    if (at_ == words_.size()) return text;
    text.relation = relation();
    text.objects.push_back(object());
    if (at_ != words_.size()) wrong("the end");
    if (text.objects[0] == text.objects[1]) {
      fail<DataError>("caption \"", printable(caption_),
                      "\": the two objects are the same, so no picture shows which is which");
    }
    return text;
  }

 private:
  [[noreturn]] void wrong(const std::string& expected) const {
    fail<DataError>("caption \"", printable(caption_), "\": expected ", expected, ", found ",
                    at_ < words_.size() ? concat("\"", printable(words_[at_], 40), "\"") : std::string("the end"),
                    "; captions are like \"a red circle\" and \"an orange star left of a blue ring\"");
  }

  // The number of the next word in `names`.
  template <size_t count>
  int choose(const char* what, const char* const (&names)[count]) {
    if (at_ < words_.size()) {
      const auto found =
          std::find_if(std::begin(names), std::end(names), [&](const char* name) { return words_[at_] == name; });
      if (found != std::end(names)) return ++at_, static_cast<int>(found - std::begin(names));
      const auto near = nearest_name(words_[at_], names);
      if (!near.empty()) wrong(concat(what, " such as \"", near, "\""));
    }
    std::string all;
    for (const char* name : names) all += concat(all.empty() ? "" : ", ", name);
    wrong(concat(what, " (", all, ")"));
  }

  ObjectKind object() {
    constexpr const char* kArticles[] = {"a", "an"};
    choose("an article", kArticles);
    const int color = choose("a colour", kColorNames);
    const int shape = choose("a shape", kShapeNames);
    return {static_cast<ShapeColor>(color), static_cast<Shape>(shape)};
  }

  Relation relation() {
    constexpr const char* kFirstWords[] = {"left", "right", "above", "below"};
    constexpr const char* kOf[] = {"of"};
    const Relation relation = kRelations[choose("a relation", kFirstWords)];
    if (relation == Relation::kLeftOf || relation == Relation::kRightOf) choose("\"of\"", kOf);
    return relation;
  }

  std::string_view caption_;
  std::vector<std::string> words_;
  size_t at_ = 0;
};

}  // namespace

const char* shape_name(Shape shape) { return kShapeNames[static_cast<int>(shape)]; }
const char* color_name(ShapeColor color) { return kColorNames[static_cast<int>(color)]; }
std::array<uint8_t, 3> color_rgb(ShapeColor color) { return kColors[static_cast<int>(color)]; }

const char* relation_name(Relation relation) {
  switch (relation) {
    case Relation::kNone: return "";
    case Relation::kLeftOf: return "left of";
    case Relation::kRightOf: return "right of";
    case Relation::kAbove: return "above";
    case Relation::kBelow: return "below";
  }
  return "";
}

ObjectKind ObjectKind::from_number(int number) {
  return {static_cast<ShapeColor>(number / kShapes), static_cast<Shape>(number % kShapes)};
}

std::string caption_of(const SceneText& text) {
  std::string caption = object_caption(text.objects.at(0));
  if (text.objects.size() > 1) {
    caption += concat(" ", relation_name(text.relation), " ", object_caption(text.objects[1]));
  }
  return caption;
}

SceneText parse_caption(std::string_view caption) { return CaptionParser(caption).parse(); }

const char* split_name(SceneSplit split) {
  switch (split) {
    case SceneSplit::kSeen: return "seen";
    case SceneSplit::kHeldOutPairs: return "held-out-pairs";
    case SceneSplit::kHeldOutCombinations: return "held-out-combinations";
  }
  return "";
}

SceneSplit parse_split(std::string_view name) {
  for (int i = 0; i < kSceneSplits; ++i) {
    const auto split = static_cast<SceneSplit>(i);
    if (name == split_name(split)) return split;
  }
  fail<ConfigError>("split: '", printable(name), "' is not one of seen, held-out-pairs, held-out-combinations");
}

bool is_held_out(ObjectKind kind) {
  return static_cast<int>(kind.shape) == (3 * static_cast<int>(kind.color) + 1) % kShapes;
}

SceneSplit split_of(const SceneText& text) {
  for (const ObjectKind& kind : text.objects) {
    if (is_held_out(kind)) return SceneSplit::kHeldOutPairs;
  }
  if (text.objects.size() < 2) return SceneSplit::kSeen;
  const int first = text.objects[0].number(), second = text.objects[1].number();
  RandomAddress address;
  address.seed = kSplitSeed;
  address.sample = static_cast<uint64_t>(64 * std::min(first, second) + std::max(first, second));
  address.stream = RandomStream::kScene;
  return random_below(address, 0, kHeldOutOneIn) == 0 ? SceneSplit::kHeldOutCombinations : SceneSplit::kSeen;
}

SplitCounts count_split(SceneSplit split) {
  SplitCounts counts;
  for (int a = 0; a < kObjectKinds; ++a) {
    const ObjectKind first = ObjectKind::from_number(a);
    counts.single_captions += split_of({{first}, Relation::kNone}) == split ? 1 : 0;
    for (int b = a + 1; b < kObjectKinds; ++b) {
      const bool in_it = split_of({{first, ObjectKind::from_number(b)}, Relation::kLeftOf}) == split;
      counts.unordered_pairs += in_it ? 1 : 0;
    }
  }
  counts.two_object_captions = counts.unordered_pairs * 2 * std::size(kRelations);
  return counts;
}

namespace {

// Numbers of one scene, one after the other.
class SceneNumbers {
 public:
  SceneNumbers(uint64_t seed, uint64_t index) {
    address_.seed = seed;
    address_.sample = index;
    address_.stream = RandomStream::kScene;
  }

  int below(int bound) { return static_cast<int>(random_below(address_, next_++, static_cast<uint64_t>(bound))); }
  double uniform() { return static_cast<double>(random_below(address_, next_++, uint64_t{1} << 53)) * 0x1p-53; }

 private:
  RandomAddress address_;
  uint64_t next_ = 0;
};

Relation draw_relation(SceneNumbers& numbers, double left_or_upper_first) {
  const Relation even = kRelations[numbers.below(static_cast<int>(std::size(kRelations)))];
  if (left_or_upper_first == 0.5) return even;
  const bool usual = numbers.uniform() < left_or_upper_first;
  const bool across = even == Relation::kLeftOf || even == Relation::kRightOf;
  if (across) return usual ? Relation::kLeftOf : Relation::kRightOf;
  return usual ? Relation::kAbove : Relation::kBelow;
}

}  // namespace

Scene make_scene(uint64_t seed, uint64_t index, SceneSplit split, const SceneShares& shares) {
  SceneNumbers numbers(seed, index);
  const bool two = numbers.uniform() < shares.two_objects || split == SceneSplit::kHeldOutCombinations;
  SceneText text;
  do {
    text.objects = {ObjectKind::from_number(numbers.below(kObjectKinds))};
    if (two) {
      text.objects.push_back(ObjectKind::from_number(numbers.below(kObjectKinds)));
      text.relation = draw_relation(numbers, shares.left_or_upper_first);
    }
  } while ((two && text.objects[0] == text.objects[1]) || split_of(text) != split);
  return place_scene(text, seed, index);
}

}  // namespace mdm
