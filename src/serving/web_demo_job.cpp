// What the program `web_demo` does.
#include "mdm/serving/web_demo_job.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "pipeline/device.h"
#include "serving/service.h"

namespace mdm {
namespace {

using namespace serving;

constexpr const char* kKeyVariable = "MDM_API_KEY";
constexpr size_t kLeastKey = 16;
constexpr double kGiB = 1024.0 * 1024 * 1024;

// The models that come with the project.
constexpr const char* kDemoFiles[] = {"shapes_32.pth", "emoji_nested_64.pth"};

// Where an installed program, and one in a build folder, finds them.
std::vector<std::filesystem::path> demo_folders() {
  std::vector<std::filesystem::path> folders;
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    for (auto folder = program.parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
      folders.push_back(folder / "share" / "mdm" / "configs" / "demo");
      folders.push_back(folder / "configs" / "demo");
    }
  }
  folders.emplace_back("configs/demo");
  return folders;
}

std::vector<ModelSpec> demo_models() {
  std::error_code ignored;
  for (const auto& folder : demo_folders()) {
    std::vector<ModelSpec> specs;
    for (const char* file : kDemoFiles) {
      if (std::filesystem::exists(folder / file, ignored)) specs.push_back(ModelSpec::parse((folder / file).string()));
    }
    if (!specs.empty()) return specs;
  }
  fail<ConfigError>("model: none is given, and the demo models are not found; give --model NAME=CHECKPOINT");
}

// A key comes from a file or the environment, so that it is in no list of processes and no shell history.
std::string key_of(const ParsedCommandLine& command_line) {
  std::string key;
  if (const char* variable = std::getenv(kKeyVariable)) key = variable;
  if (command_line.has("api-key-file")) key = read_text_file(command_line.required("api-key-file"), size_t{1} << 12);
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r' || key.back() == ' ')) key.pop_back();
  if (!key.empty() && key.size() < kLeastKey) {
    fail<ConfigError>("the key has ", key.size(), " characters; at least ", kLeastKey, " are needed");
  }
  return key;
}

AccessOptions access_of(const ParsedCommandLine& command_line) {
  AccessOptions access;
  access.host = command_line.option("host", "127.0.0.1");
  access.allowed_hosts = command_line.values("allowed-host");
  access.key = key_of(command_line);
  access.posts_per_minute = command_line.number("max-posts-per-minute", access.posts_per_minute, 1, 1e9);
  if (!is_loopback(access.host) && access.key.empty()) {
    fail<ConfigError>("host: ", printable(access.host),
                      " can be reached by others: give a key, in a file that --api-key-file"
                      " names or in the variable ",
                      kKeyVariable);
  }
  return access;
}

ServiceOptions options_of(const ParsedCommandLine& command_line) {
  constexpr int64_t kMany = 1000000;
  ServiceOptions options;
  options.access = access_of(command_line);
  options.port = static_cast<uint16_t>(command_line.whole_number("port", options.port, 0, 65535));
  QueueLimits& queue = options.queue;
  queue.queued = static_cast<size_t>(command_line.whole_number("max-queue", 8, 1, kMany));
  queue.per_client = static_cast<size_t>(command_line.whole_number("max-jobs-per-client", 2, 1, kMany));
  queue.batch = command_line.whole_number("max-batch", queue.batch, 1, 1024);
  queue.job_seconds = command_line.number("max-job-seconds", queue.job_seconds, 1, 1e9);
  queue.results_bytes = static_cast<size_t>(command_line.number("results-mib", 256, 1, 1e6) * 1024 * 1024);
  options.orders.steps = command_line.whole_number("max-steps", options.orders.steps, 1, kMany);
  options.orders.pictures = command_line.whole_number("max-pictures", options.orders.pictures, 1, 1024);
  options.http.connections = static_cast<size_t>(command_line.whole_number("max-connections", 64, 1, kMany));
  return options;
}

// Settings of the machine and of text, for all models; the text encoder stays for the next prompt.
Overrides overrides_for(const ParsedCommandLine& command_line, const std::string& device) {
  Overrides overrides = command_line.overrides;
  overrides.emplace_back("runtime.device", device);
  overrides.emplace_back("text.keep_text_encoder", "yes");
  return overrides;
}

// A worker with models of its own for each device.
std::vector<std::shared_ptr<ModelShelf>> shelves_of(const ParsedCommandLine& command_line,
                                                    const RuntimeConfig& runtime) {
  std::vector<ModelSpec> specs;
  for (const std::string& text : command_line.values("model")) specs.push_back(ModelSpec::parse(text));
  if (specs.empty()) specs = demo_models();
  std::vector<std::shared_ptr<ModelShelf>> shelves;
  for (const at::Device device : all_devices(runtime.device)) {
    const double memory =
        command_line.number("memory-gib", static_cast<double>(available_memory(device)) / kGiB / 2, 0, 1e6);
    shelves.push_back(std::make_shared<ModelShelf>(specs, overrides_for(command_line, device.str()),
                                                   static_cast<int64_t>(memory * kGiB)));
  }
  return shelves;
}

}  // namespace

AppInfo web_demo_app_info() {
  AppInfo info;
  info.name = "web_demo";
  info.summary = "Serves models on a web page, and to other programs over HTTP.";
  info.sections = Section::kText | Section::kRuntime;
  info.options = {
      {"model", "NAME=CHECKPOINT[:CONFIG]",
       "a model; may be repeated, the first is the default (none: the demo models)"},
      {"port", "N", "where to listen; 0: any free port (default 7860)"},
      {"host", "ADDRESS", "where to listen (default 127.0.0.1, this machine alone); others need a key"},
      {"allowed-host", "NAME", "a further name that requests may ask for, as that of a proxy; may be repeated"},
      {"api-key-file", "FILE", "the key that requests must carry; also the variable MDM_API_KEY"},
      {"memory-gib", "X", "weights of image models that are kept loaded together (default half of what is free)"},
      {"max-queue", "N", "jobs that wait; more are refused with 503 (default 8)"},
      {"max-jobs-per-client", "N", "jobs of one address that wait or run; more are refused with 429 (default 2)"},
      {"max-batch", "N", "pictures that are denoised together, of one job or several (default 4)"},
      {"max-pictures", "N", "pictures of one job (default 4)"},
      {"max-steps", "N", "denoising steps of one job (default 1000)"},
      {"max-job-seconds", "X", "seconds that a job may run (default 3600)"},
      {"max-connections", "N", "connections that are open together (default 64)"},
      {"max-posts-per-minute", "X", "POST requests of one address (default 240)"},
      {"results-mib", "X", "finished pictures that are kept; the oldest go first (default 256)"}};
  info.examples =
      "  web_demo\n"
      "  web_demo --model 64=vis_model_64x64.pth:configs/models/cc12m_64x64.yaml \\\n"
      "           --model 256=vis_model_256x256.pth:configs/models/cc12m_256x256.yaml --precision bf16\n"
      "  MDM_API_KEY=... web_demo --host 0.0.0.0 --allowed-host pictures.example.org\n";
  return info;
}

int run_web_demo(const ParsedCommandLine& command_line, const std::atomic<bool>& stop) {
  const RuntimeConfig runtime = command_line.preliminary().config.runtime;
  apply_runtime(runtime);
  const ServiceOptions options = options_of(command_line);
  Service service(shelves_of(command_line, runtime), options);
  const std::string host =
      options.access.host.find(':') == std::string::npos ? options.access.host : concat("[", options.access.host, "]");
  std::printf("http://%s:%u/\n", host.c_str(), static_cast<unsigned>(service.port()));
  std::fflush(stdout);
  for (const auto& model : service.models()) {
    log_info("model ", model->name, ": ", model->pipeline.config().model.kind(), ", ",
             model->pipeline.structure().parameters, " numbers, on ", model->pipeline.config().runtime.device);
  }
  if (!options.access.key.empty()) log_info("requests need the key");
  while (!stop) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log_info("stopping: the running step is ended, waiting clients are told");
  service.stop();
  return 0;
}

}  // namespace mdm
