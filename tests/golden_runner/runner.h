// The golden runner's frame: what a case is, how it is judged, and how tensors are compared.
// Each kind of case lives in a file of its own (unet.cpp, sampler.cpp, ...) and is listed in kinds.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mdm::golden {

struct Context {
  std::filesystem::path reference;  ///< folder of the reference's data files; empty: none
};

/// Collects the comparisons of one case. The error of a comparison is |a - e| / (atol + rtol |e|), so 1
/// is the bound; the largest counts.
class Report {
 public:
  /// Element by element: shapes and NaN places must agree.
  void compare(const std::string& what, const at::Tensor& actual, const at::Tensor& expected, double atol, double rtol);
  void compare(const std::string& what, double actual, double expected, double atol, double rtol);
  /// Bit for bit, dtype and shape too.
  void exact(const std::string& what, const at::Tensor& actual, const at::Tensor& expected);
  /// A condition that must hold; `detail` is shown when it does not.
  void require(bool holds, const std::string& what, const std::string& detail = "");
  void fail(const std::string& what) { require(false, what); }
  /// The case can't be run here (say why); counted, and a failure under --no-skip.
  void skip(const std::string& why);

  bool failed() const { return !failures_.empty(); }
  bool skipped() const { return !skip_.empty(); }
  double worst() const { return worst_; }  ///< as a share of the bound
  const std::string& worst_what() const { return worst_what_; }
  double worst_absolute() const { return worst_absolute_; }                ///< largest |a - e|
  double worst_relative_to_max() const { return worst_relative_to_max_; }  ///< largest |a - e| / max |e| of a tensor
  int comparisons() const { return comparisons_; }
  const std::vector<std::string>& failures() const { return failures_; }
  const std::string& skip_reason() const { return skip_; }

 private:
  double worst_ = 0, worst_absolute_ = 0, worst_relative_to_max_ = 0;
  int comparisons_ = 0;
  std::string worst_what_, skip_;
  std::vector<std::string> failures_;
};

/// One case: what to print, and the check that runs it.
struct Case {
  std::string name;  ///< path below the folder given on the command line
  std::string kind;
  std::filesystem::path path;  ///< the case's folder, or its main file
  void (*check)(const std::filesystem::path& path, const Context& context, Report& report) = nullptr;
};

/// All cases at `folder` itself (not below it): kinds recognise their own layout. Looks into no parents.
std::vector<Case> cases_in(const std::filesystem::path& folder);

nlohmann::json read_json(const std::filesystem::path& path);
std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path);
/// The file of the reference whose path a case gives relative to `reference/`, e.g. "data/t5.vocab";
/// empty when there is no reference folder or it lacks the file.
std::filesystem::path reference_file(const Context& context, const std::string& relative);

// The checks, one per kind of case.
void check_keys(const std::filesystem::path& path, const Context&, Report&);        // NAME.keys.tsv
void check_init(const std::filesystem::path& path, const Context&, Report&);        // NAME.config.yaml + NAME.json
void check_unet(const std::filesystem::path& path, const Context&, Report&);        // case.json, kind unet
void check_nested(const std::filesystem::path& path, const Context&, Report&);      // kinds nested, nested_init_inner
void check_schedules(const std::filesystem::path& path, const Context&, Report&);   // kind schedules
void check_diffusion(const std::filesystem::path& path, const Context&, Report&);   // conversions, thresholds, losses
void check_sampler(const std::filesystem::path& path, const Context&, Report&);     // kind sampler
void check_checkpoint(const std::filesystem::path& path, const Context&, Report&);  // one .pth of a manifest.json
void check_tokenizer(const std::filesystem::path& path, const Context&, Report&);   // a .jsonl
void check_t5(const std::filesystem::path& path, const Context&, Report&);          // model/ + io.safetensors
void check_train(const std::filesystem::path& path, const Context&, Report&);       // kind train
void check_end_to_end(const std::filesystem::path& path, const Context&, Report&);  // kind end_to_end
void check_reader_decode(const std::filesystem::path& path, const Context&, Report&);  // decoded.json
void check_reader_resize(const std::filesystem::path& path, const Context&, Report&);  // resized.json
void check_reader_run(const std::filesystem::path& path, const Context&, Report&);     // runs/NAME.json

}  // namespace mdm::golden
