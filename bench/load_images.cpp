// How many images a second the loader gives: bench_load_images LIST --image-size N [--vocab FILE] [--batch N]
// [--images N] [--threads N] [--mlx] [--turns]. Prints a line of JSON for each turn; with --turns it waits for a line
// "go" on the standard input before each (reference_reader.py takes turns with it).
#include <sys/resource.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/data/loader.h"
#include "mdm/text/mdm_tokenizer.h"

namespace {

struct LoadSettings {
  std::string list;
  std::string vocab;
  mdm::ReaderConfig reader;
  int64_t batch = 32;
  int64_t images = 1000;
  bool turns = false;
};

bool parse(int argc, char** argv, LoadSettings& settings) {
  settings.reader.num_readers = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--mlx") {
      settings.reader.compat = mdm::ReaderCompat::kMlx;
    } else if (word == "--turns") {
      settings.turns = true;
    } else if (word == "--vocab" && more) {
      settings.vocab = argv[++i];
    } else if (word == "--image-size" && more) {
      settings.reader.image_size = std::stoll(argv[++i]);
    } else if (word == "--batch" && more) {
      settings.batch = std::stoll(argv[++i]);
    } else if (word == "--images" && more) {
      settings.images = std::stoll(argv[++i]);
    } else if (word == "--threads" && more) {
      settings.reader.num_readers = std::stoll(argv[++i]);
    } else if (settings.list.empty() && word[0] != '-') {
      settings.list = word;
    } else {
      return false;
    }
  }
  return !settings.list.empty() && settings.reader.image_size > 0;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Opening, reading and ending count: what was read ahead was paid for.
nlohmann::json measure(const LoadSettings& settings, const mdm::Tokenizer* tokenizer) {
  const double wall = wall_seconds(), cpu = cpu_seconds();
  const auto data = mdm::open_training_data(settings.list, settings.reader, tokenizer, 1, settings.batch);
  const double opened = cpu_seconds();
  mdm::LoaderOptions options;
  options.reader = settings.reader;
  options.reader.reader_buffer_size = 2;
  int64_t images = 0;
  int64_t pixels = 0;
  {
    mdm::Loader loader(data, options);
    while (images < settings.images) {
      const mdm::Batch batch = loader.next();
      images += batch.size();
      pixels += batch.images.data_ptr<uint8_t>()[0];
    }
  }
  const double seconds = wall_seconds() - wall, used = cpu_seconds() - cpu;
  return {{"images", images},
          {"seconds", seconds},
          {"cpu_seconds", used},
          {"cpu_seconds_to_open", opened - cpu},
          {"images_per_second", static_cast<double>(images) / seconds},
          {"images_per_cpu_second", static_cast<double>(images) / used},
          {"check", pixels}};
}

}  // namespace

int main(int argc, char** argv) {
  LoadSettings settings;
  if (!parse(argc, argv, settings)) {
    std::cerr << "usage: bench_load_images LIST --image-size N [--vocab FILE] [--batch N] [--images N] [--threads N] "
                 "[--mlx] [--turns]\n";
    return 2;
  }
  mdm::set_log_level(mdm::LogLevel::kError);
  try {
    std::unique_ptr<mdm::Tokenizer> tokenizer;
    if (!settings.vocab.empty()) {
      tokenizer = std::make_unique<mdm::MdmTokenizer>(mdm::MdmTokenizer::open(settings.vocab));
    }
    std::string line;
    do {
      if (settings.turns && !std::getline(std::cin, line)) break;
      std::cout << measure(settings, tokenizer.get()) << std::endl;
    } while (settings.turns);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
