// The program `demo_dataset`: its verbs and flags.
#include "mdm/demo/dataset_job.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <utility>

#include "demo/judge_report.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/progress.h"
#include "mdm/core/random.h"
#include "mdm/data/dataset.h"
#include "mdm/demo/dataset.h"
#include "mdm/demo/emoji.h"
#include "mdm/demo/shapes.h"

namespace mdm {
namespace {

constexpr int64_t kMostSamples = int64_t{1} << 40;
constexpr int64_t kMostSeed = (int64_t{1} << 62) - 1;

void report(const WrittenDataset& written) {
  std::printf("train: %s (%zu samples)\n", written.train_list.string().c_str(), written.train_samples);
  if (!written.validation_list.empty()) {
    std::printf("validation: %s (%zu samples)\n", written.validation_list.string().c_str(), written.validation_samples);
  }
  std::printf("vocabulary: %s\n", written.vocabulary.string().c_str());
  if (written.without_bitmap > 0) std::printf("left out, because the font lacks them: %zu\n", written.without_bitmap);
}

// Shows how many samples are written.
class WritingProgress {
 public:
  CountProgress callback() {
    return [this](size_t done, size_t total) {
      if (!progress_) {
        ProgressOptions options;
        options.label = "writing";
        options.total = total;
        options.unit = "samples";
        progress_ = std::make_unique<Progress>(options);
      }
      progress_->set(done);
    };
  }

 private:
  std::unique_ptr<Progress> progress_;
};

SceneShares scene_shares(const ParsedCommandLine& command_line) {
  SceneShares shares;
  shares.two_objects = command_line.number("two-objects", shares.two_objects, 0, 1);
  shares.left_or_upper_first = command_line.number("left-or-upper-first", shares.left_or_upper_first, 0, 1);
  return shares;
}

int write_shapes(const ParsedCommandLine& command_line) {
  ShapeDataset settings;
  settings.folder = command_line.required("output-dir");
  settings.count = static_cast<uint64_t>(command_line.whole_number("count", 20000, 1, kMostSamples - 1));
  settings.validation_count =
      static_cast<uint64_t>(command_line.whole_number("validation-count", 512, 0, kMostSamples));
  settings.side = static_cast<int>(command_line.whole_number("side", 32, 16, 1024));
  settings.seed = static_cast<uint64_t>(command_line.whole_number("seed", 1, 0, kMostSeed));
  settings.shares = scene_shares(command_line);
  settings.shard_size = static_cast<size_t>(command_line.whole_number("shard-size", 1000, 1, 1000000));
  WritingProgress progress;
  report(write_shape_dataset(settings, progress.callback()));
  for (int i = 0; i < kSceneSplits; ++i) {
    const auto split = static_cast<SceneSplit>(i);
    const SplitCounts counts = count_split(split);
    std::printf("%s: %zu captions of one object, %zu of two (%zu pairs of objects)\n", split_name(split),
                counts.single_captions, counts.two_object_captions, counts.unordered_pairs);
  }
  return 0;
}

std::string emoji_list(const ParsedCommandLine& command_line) { return command_line.option("names", kEmojiListFile); }
std::string emoji_font(const ParsedCommandLine& command_line) { return command_line.option("font", kEmojiFontFile); }

int write_emoji(const ParsedCommandLine& command_line) {
  EmojiDataset settings;
  settings.folder = command_line.required("output-dir");
  settings.list_file = emoji_list(command_line);
  settings.font_file = emoji_font(command_line);
  settings.side = static_cast<int>(command_line.whole_number("side", 64, 16, 1024));
  settings.skin_tones = command_line.has("skin-tones");
  settings.validation_every = static_cast<uint64_t>(command_line.whole_number("validation-every", 0, 0, kMostSamples));
  settings.shard_size = static_cast<size_t>(command_line.whole_number("shard-size", 1000, 1, 1000000));
  WritingProgress progress;
  report(write_emoji_dataset(settings, progress.callback()));
  return 0;
}

// `count` captions that are drawn evenly from all emoji, none twice while there are enough.
std::vector<std::string> emoji_prompts(const ParsedCommandLine& command_line, uint64_t seed, size_t count) {
  constexpr int kAnySide = 16;
  const EmojiPictures emoji(emoji_list(command_line), emoji_font(command_line), kAnySide,
                            command_line.has("skin-tones"));
  std::vector<std::string> captions = emoji.captions();
  RandomAddress address;
  address.seed = seed;
  address.stream = RandomStream::kScene;
  for (size_t i = 0; i + 1 < captions.size(); ++i) {
    std::swap(captions[i], captions[i + random_below(address, i, captions.size() - i)]);
  }
  captions.resize(std::min(count, captions.size()));
  return captions;
}

std::vector<std::string> shape_prompts(const ParsedCommandLine& command_line, uint64_t seed, size_t count) {
  const SceneSplit split = parse_split(command_line.option("split", split_name(SceneSplit::kSeen)));
  const SceneShares shares = scene_shares(command_line);
  std::vector<std::string> captions;
  for (size_t i = 0; i < count; ++i) captions.push_back(caption_of(make_scene(seed, i, split, shares).text));
  return captions;
}

int write_prompts(const ParsedCommandLine& command_line) {
  const auto count = static_cast<size_t>(command_line.whole_number("count", 200, 1, 1000000));
  // Another default than that of data sets: the prompts of seen scenes aren't simply the first training captions.
  const auto seed = static_cast<uint64_t>(command_line.whole_number("seed", 1000, 0, kMostSeed));
  const auto captions =
      command_line.has("emoji") ? emoji_prompts(command_line, seed, count) : shape_prompts(command_line, seed, count);
  std::string text;
  for (const std::string& caption : captions) text += caption + '\n';
  if (command_line.has("output")) {
    write_file(command_line.option("output"), text);
  } else {
    std::cout << text;
  }
  return 0;
}

// For a text encoder that is trained along, from the captions of any data set.
int write_vocabulary(const ParsedCommandLine& command_line) {
  constexpr int64_t kFewestEntries = 200;  // the characters alone are about a hundred
  const std::string output = command_line.required("output");
  const auto entries = static_cast<size_t>(
      command_line.whole_number("vocabulary-size", int64_t{1} << 20, kFewestEntries, int64_t{1} << 20));
  const auto dataset = Dataset::open(command_line.required("file-list"));
  std::vector<std::string> captions;
  for (size_t i = 0; i < dataset->size(); ++i) captions.emplace_back(dataset->caption(i));
  const std::string text = caption_vocabulary(captions, entries);
  write_file(output, text);
  std::printf("vocabulary: %s (%td entries, of %zu captions)\n", output.c_str(),
              std::count(text.begin(), text.end(), '\n'), captions.size());
  return 0;
}

int judge_pictures(const ParsedCommandLine& command_line) {
  const auto pictures = find_pictures(command_line.required("images"), command_line.option("prompts"));
  const bool details = command_line.has("details");
  if (command_line.has("emoji")) {
    const int side = static_cast<int>(command_line.whole_number("side", 64, 16, 1024));
    const EmojiPictures emoji(emoji_list(command_line), emoji_font(command_line), side, command_line.has("skin-tones"));
    std::cout << judge_emoji_report(pictures, emoji, details) << std::endl;
  } else {
    std::cout << judge_shapes_report(pictures, details) << std::endl;
  }
  return 0;
}

}  // namespace

AppInfo demo_dataset_app_info() {
  AppInfo info;
  info.name = "demo_dataset";
  info.summary = "Makes captioned pictures to train small models on, and judges what the models draw.";
  info.positionals = "shapes | emoji | prompts | judge | vocabulary";
  info.options = {
      {"output-dir", "DIR", "shapes, emoji: folder of the data set (train.tsv, validation.tsv, captions.vocab, tars)"},
      {"count", "N", "shapes: training samples (default 20000); prompts: lines (default 200)"},
      {"validation-count", "N", "shapes: validation samples (default 512)"},
      {"validation-every", "N", "emoji: every N-th is for validation instead of training; 0: none (default 0)"},
      {"side", "N", "side of the pictures in pixels (default: shapes 32, emoji 64)"},
      {"seed", "SEED", "of the scenes (default: shapes 1, prompts 1000)"},
      {"two-objects", "SHARE", "shapes, prompts: share of scenes with two objects, 0 to 1 (default 0.7)"},
      {"left-or-upper-first", "SHARE",
       "shapes, prompts: share of captions of two objects that begin with the left or upper one, 0 to 1 (default 0.5)"},
      {"shard-size", "N", "samples in a tar (default 1000)"},
      {"split", "NAME", "prompts: seen, held-out-pairs or held-out-combinations (default seen)"},
      {"output", "FILE", "prompts: where the lines go (default: stdout); vocabulary: the file to write"},
      {"file-list", "LIST", "vocabulary: the data set with the captions, as train_parallel takes it"},
      {"vocabulary-size", "N", "vocabulary: most entries; rare words are left out (default: all)"},
      {"images", "DIR|FILE", "judge: folder that `sample` wrote, or its lst.json"},
      {"prompts", "FILE", "judge: captions, a line each, instead of those in lst.json"},
      {"details", "", "judge: also print a verdict for each picture"},
      {"emoji", "", "prompts, judge: of emoji instead of shapes"},
      {"names", "FILE", concat("emoji: the names (default: ", kEmojiListFile, ")")},
      {"font", "FILE", concat("emoji: the pictures (default: ", kEmojiFontFile, ")")},
      {"skin-tones", "", "emoji: with those that have a skin tone"},
  };
  info.examples =
      "  demo_dataset shapes --output-dir data/shapes_32 --count 20000 --side 32 --seed 1\n"
      "  demo_dataset emoji --output-dir data/emoji_64 --side 64\n"
      "  demo_dataset prompts --split held-out-combinations --count 200 --output prompts.txt\n"
      "  demo_dataset judge --images samples\n"
      "  demo_dataset vocabulary --file-list train.tar --output captions.vocab\n";
  return info;
}

int run_demo_dataset(const ParsedCommandLine& command_line) {
  const auto& words = command_line.positionals;
  if (words.size() == 1) {
    if (words[0] == "shapes") return write_shapes(command_line);
    if (words[0] == "emoji") return write_emoji(command_line);
    if (words[0] == "prompts") return write_prompts(command_line);
    if (words[0] == "judge") return judge_pictures(command_line);
    if (words[0] == "vocabulary") return write_vocabulary(command_line);
  }
  fail<ConfigError>("usage: demo_dataset shapes | emoji | prompts | judge | vocabulary",
                    words.empty() ? "" : concat("; found '", printable(words.size() == 1 ? words[0] : words[1]), "'"));
}

}  // namespace mdm
