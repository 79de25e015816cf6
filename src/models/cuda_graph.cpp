// Graphs of a CUDA device, by the runtime's own calls: at::cuda::CUDAGraph can't be put right again after a capture
// that failed (the allocator and the default generator go on waiting for its end).
#include "mdm/models/graphed_forward.h"
#if MDM_HAS_CUDA
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <exception>
#endif

namespace mdm {
#if MDM_HAS_CUDA
namespace {

class CudaGraph final : public DeviceGraph {
 public:
  explicit CudaGraph(const c10::cuda::CUDAStream& aside) : aside_(aside), pool_(at::cuda::graph_pool_handle()) {}

  ~CudaGraph() override {
    try {
      const c10::cuda::CUDAGuard guard(aside_.device_index());
      outputs_.clear();
      // What was replayed may still run: the driver keeps the graph until it has, and cudaFree waits.
      if (executable_ != nullptr) C10_CUDA_CHECK_WARN(cudaGraphExecDestroy(executable_));
      for (; pool_uses_ > 0; --pool_uses_) c10::cuda::CUDACachingAllocator::releasePool(aside_.device_index(), pool_);
      // Nobody else can use what the allocator would keep of it.
      c10::cuda::CUDACachingAllocator::emptyCache(pool_);
    } catch (const std::exception&) {  // a lost device; the next call says so
    }
  }

  std::vector<at::Tensor> warm_up(const Work& work) override {
    const Aside scope(*this);
    return work();
  }

  void record(const Work& work) override {
    const Aside scope(*this);
    // Of this thread's calls only those that can't be recorded are errors; other threads serve other devices.
    C10_CUDA_CHECK(cudaStreamBeginCapture(aside_.stream(), cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      outputs_ = work();
    } catch (...) {
      // What can't be recorded makes the whole capture invalid; its end, which says so again, frees the stream for
      // other work. What remains is the memory of the pool, until the destructor.
      cudaStreamEndCapture(aside_.stream(), &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      (void)cudaGetLastError();
      throw;
    }
    C10_CUDA_CHECK(cudaStreamEndCapture(aside_.stream(), &graph));
    const cudaError_t code = cudaGraphInstantiateWithFlags(&executable_, graph, 0);
    C10_CUDA_CHECK_WARN(cudaGraphDestroy(graph));
    if (code != cudaSuccess) executable_ = nullptr;
    C10_CUDA_CHECK(code);
  }

  const std::vector<at::Tensor>& replay() override {
    const c10::cuda::CUDAGuard guard(aside_.device_index());
    // The host is one replay ahead, no more. Launches by the hundred fill the driver's queue, which holds the host
    // back; whole steps as one launch don't, and progress would tell of steps that are not made yet, and cancelling
    // wait for them.
    at::cuda::CUDAEvent& done = done_[replays_++ % 2];
    done.synchronize();
    C10_CUDA_CHECK(cudaGraphLaunch(executable_, c10::cuda::getCurrentCUDAStream().stream()));
    done.record();
    return outputs_;
  }

 private:
  // While it lives, the thread's work goes to the stream aside, after what the caller's stream has, and that stream's
  // memory comes from the pool, which nothing else uses: what is recorded reads and writes it for as long as the graph
  // lives. Warmed up there, too, the recording finds the memory that it needs.
  class Aside {
   public:
    explicit Aside(CudaGraph& graph)
        : graph_(graph), caller_(c10::cuda::getCurrentCUDAStream(graph.aside_.device_index())), guard_(graph.aside_) {
      wait(graph_.aside_, caller_);
      const auto is_aside = [stream = graph_.aside_.stream()](cudaStream_t other) { return other == stream; };
      c10::cuda::CUDACachingAllocator::beginAllocateToPool(graph_.aside_.device_index(), graph_.pool_, is_aside);
      ++graph_.pool_uses_;  // each beginning is one
    }
    ~Aside() {
      try {
        c10::cuda::CUDACachingAllocator::endAllocateToPool(graph_.aside_.device_index(), graph_.pool_);
        wait(caller_, graph_.aside_);
      } catch (const std::exception&) {  // a lost device; the next call says so
      }
    }
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;

   private:
    static void wait(const c10::cuda::CUDAStream& waiting, const c10::cuda::CUDAStream& working) {
      at::cuda::CUDAEvent event;
      event.record(working);
      event.block(waiting);
    }

    CudaGraph& graph_;
    c10::cuda::CUDAStream caller_;
    c10::cuda::CUDAStreamGuard guard_;
  };

  c10::cuda::CUDAStream aside_;
  c10::cuda::MempoolId_t pool_;
  int pool_uses_ = 0;
  cudaGraphExec_t executable_ = nullptr;
  std::vector<at::Tensor> outputs_;
  at::cuda::CUDAEvent done_[2] = {at::cuda::CUDAEvent(cudaEventDisableTiming | cudaEventBlockingSync),
                                  at::cuda::CUDAEvent(cudaEventDisableTiming | cudaEventBlockingSync)};
  size_t replays_ = 0;
};

}  // namespace

GraphMaker graph_maker(at::Device device) {
  if (!device.is_cuda()) return {};
  // The stream is kept for all graphs: the libraries hold a workspace for each stream that they have seen.
  const c10::cuda::CUDAStream aside = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index());
  return [aside] { return std::make_unique<CudaGraph>(aside); };
}
#else
GraphMaker graph_maker(at::Device) { return {}; }
#endif

}  // namespace mdm
