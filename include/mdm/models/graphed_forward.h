// The model's work of a sampling step as one launch: recorded once, then replayed (CUDA graphs). For one picture a
// step is many hundreds of small kernels, whose launches take longer than their work.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/models/conditioning.h"
#include "mdm/models/forward_context.h"
#include "mdm/models/unet.h"

namespace mdm {

/// Work of a device that is recorded once and then done again and again, in the same memory each time.
class DeviceGraph {
 public:
  using Work = std::function<std::vector<at::Tensor>()>;
  virtual ~DeviceGraph() = default;
  /// Does `work` where it will be recorded, so that whatever happens on a first call has happened; gives its outputs,
  /// which are to be copied before the next call of this object. What the caller asks for later waits for it.
  virtual std::vector<at::Tensor> warm_up(const Work& work) = 0;
  /// Records what `work` asks of the device, which does nothing of it yet. Throws when something in it can't be
  /// recorded; the device can be used as before then.
  virtual void record(const Work& work) = 0;
  /// Does what was recorded; gives its outputs, which the next replay overwrites.
  virtual const std::vector<at::Tensor>& replay() = 0;
};

/// Makes graphs for a device; empty: there are none for it.
using GraphMaker = std::function<std::unique_ptr<DeviceGraph>()>;

/// CUDA graphs for a CUDA device; empty for others. All graphs of one maker are recorded on one stream: a maker serves
/// one thread.
GraphMaker graph_maker(at::Device device);

/// UNet::forward for the steps of one run, by graphs where that pays: its first call for some shapes and conditioning
/// runs as always and records, the second replays and compares with a run as always, the others replay. When
/// something fails, or the two differ in a bit, all calls run as always from then on, and a warning is logged: the
/// outputs are those of UNet::forward in any case. Frees its graphs and their memory (another set of the model's
/// activations, for each graph) when it ends.
class GraphedForward {
 public:
  /// Fewest calls for which recording pays. Recording costs about a call's launches, the comparison another call; of
  /// the calls that are left each saves most of its launches.
  static constexpr int64_t kFewestCalls = 6;

  /// `calls`: how many will come, about. The model, whose weights must stay where they are, and `make` must outlive
  /// this. `make` is emptied when a graph fails, so that later runs with it don't try again.
  GraphedForward(const UNet& model, GraphMaker& make, int64_t calls);
  ~GraphedForward();
  GraphedForward(const GraphedForward&) = delete;
  GraphedForward& operator=(const GraphedForward&) = delete;

  /// As UNet::forward. The outputs are the caller's own: copies, a few launches a step, so that samplers may keep
  /// them. With a probe, in training, and where gradients are recorded it is UNet::forward itself; also for a third
  /// combination of shapes and conditioning: a run has at most two (with guidance and, outside its interval, without).
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                     const Conditioning& conditioning, const ForwardContext& context);

 private:
  struct Recording;  // a graph and the memory that it reads

  std::vector<at::Tensor> graphed(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                  const Conditioning& conditioning, Recording* known);
  Recording* find(const std::vector<at::Tensor>& x_t, const at::Tensor& times, const Conditioning& conditioning) const;
  void give_up(const std::string& why);

  const UNet* model_;
  GraphMaker* make_;
  int64_t calls_;
  std::vector<std::unique_ptr<Recording>> recordings_;
};

}  // namespace mdm
