#include "mdm/distributed/process_group.h"

#include "mdm/core/error.h"

namespace mdm {

std::unique_ptr<ProcessGroup::Pending> ProcessGroup::begin_sum(const at::Tensor& /*values*/,
                                                               const std::string& /*what*/) {
  return std::make_unique<Pending>();
}

std::unique_ptr<ProcessGroup::Pending> ProcessGroup::begin_reduce_scatter(const at::Tensor& /*values*/,
                                                                          const std::string& /*what*/) {
  return std::make_unique<Pending>();
}

std::unique_ptr<ProcessGroup::Pending> ProcessGroup::begin_all_gather(const at::Tensor& /*values*/,
                                                                      const std::string& /*what*/) {
  return std::make_unique<Pending>();
}

std::string ProcessGroup::first_does(const std::function<std::string()>& action, const std::string& what) {
  constexpr char kDone = '+', kFailed = '-';
  if (rank() != 0) {
    const std::string text = from_first("", what);
    if (text.empty() || text[0] != kDone) fail<DistributedError>("rank 0: ", text.empty() ? text : text.substr(1));
    return text.substr(1);
  }
  std::string result;
  try {
    result = action();
  } catch (const std::exception& error) {
    from_first(kFailed + std::string(error.what()), what);
    throw;
  }
  from_first(kDone + result, what);
  return result;
}

}  // namespace mdm
