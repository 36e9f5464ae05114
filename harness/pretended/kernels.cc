// For every kernel that TensorFlow has registered for "GPU", one more of a higher priority that computes with the CPU's
// kernel, on the card's own memory (which is host memory): same constraints, same HostMemory arguments as on CUDA. And the
// graph optimizers that would make operations of which CUDA alone has kernels are switched off. libcuda.so.1 loads this
// library when TensorFlow calls cuInit.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>

#include "tensorflow/c/experimental/grappler/grappler.h"
#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/node_properties.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tf = tensorflow;

namespace {

std::shared_ptr<const tf::NodeProperties> PropertiesOf(tf::OpKernelConstruction* context) {
  std::shared_ptr<const tf::NodeProperties> properties;
  context->SetStatus(tf::NodeProperties::CreateFromNodeDef(context->def(), tf::OpRegistry::Global(), &properties));
  return properties;
}

// The CPU's kernel for the same node; null, with the context's status set, where there is none.
std::unique_ptr<tf::OpKernel> InnerOf(tf::OpKernelConstruction* context) {
  auto properties = PropertiesOf(context);
  if (!context->status().ok()) return nullptr;
  tf::OpKernel* inner = nullptr;
  context->SetStatus(tf::CreateOpKernel(tf::DeviceType(tf::DEVICE_CPU), context->device(),
                                        context->device()->GetAllocator(tf::AllocatorAttributes()),
                                        context->function_library(), context->resource_manager(), properties,
                                        context->graph_def_version(), &inner));
  return std::unique_ptr<tf::OpKernel>(inner);
}

class OnHost : public tf::OpKernel {
 public:
  OnHost(tf::OpKernelConstruction* context, std::unique_ptr<tf::OpKernel> inner)
      : tf::OpKernel(context), inner_(std::move(inner)) {}
  void Compute(tf::OpKernelContext* context) override { inner_->Compute(context); }
  bool IsExpensive() override { return inner_->IsExpensive(); }
  const tf::Tensor* const_tensor() const override { return nullptr; }

 private:
  std::unique_ptr<tf::OpKernel> inner_;
};

class OnHostAsync : public tf::AsyncOpKernel {
 public:
  OnHostAsync(tf::OpKernelConstruction* context, std::unique_ptr<tf::OpKernel> inner)
      : tf::AsyncOpKernel(context), inner_(std::move(inner)) {}
  void ComputeAsync(tf::OpKernelContext* context, DoneCallback done) override {
    inner_->AsAsync()->ComputeAsync(context, std::move(done));
  }

 private:
  std::unique_ptr<tf::OpKernel> inner_;
};

// Where the CPU has no kernel either: a sentence, instead of a launch that computes nothing.
class Refused : public tf::OpKernel {
 public:
  explicit Refused(tf::OpKernelConstruction* context) : tf::OpKernel(context) {}
  void Compute(tf::OpKernelContext* context) override {
    context->SetStatus(tf::errors::Unimplemented("the pretended card has no kernel for ", type_string()));
  }
};

class Factory : public tf::kernel_factory::OpKernelFactory {
 public:
  tf::OpKernel* Create(tf::OpKernelConstruction* context) override {
    auto inner = InnerOf(context);
    if (inner == nullptr) {
      context->SetStatus(tf::errors::Unimplemented("the pretended card has no kernel for ", context->def().op(), ": ",
                                                   context->status().message()));
      return new Refused(context);
    }
    if (inner->AsAsync() != nullptr) return new OnHostAsync(context, std::move(inner));
    return new OnHost(context, std::move(inner));
  }
};

// Where the kernel of "GPU" only hands on, names or allocates: TensorFlow's own stays.
const std::set<std::string>& Kept() {
  static const auto* kept = new std::set<std::string>{
      "_Send", "_Recv", "_HostSend", "_HostRecv", "_Arg", "_Retval", "_DeviceArg", "_DeviceRetval", "Const", "_EagerConst",
      "Switch", "RefSwitch", "_SwitchN", "Merge", "RefMerge", "Enter", "RefEnter", "Exit", "RefExit", "NextIteration",
      "RefNextIteration", "LoopCond", "PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While",
      "StatelessWhile", "Case", "StatelessCase", "For", "RemoteCall", "SymbolicGradient", "FakeParam", "ToBool", "NoOp",
      "ControlTrigger", "VarHandleOp", "DeviceIndex", "BatchFunction", "Identity", "RefIdentity", "StopGradient",
      "PreventGradient", "PlaceholderWithDefault", "Reshape", "ExpandDims", "Squeeze", "Shape", "ShapeN", "Size", "Rank",
      "IsVariableInitialized", "TemporaryVariable", "DestroyTemporaryVariable", "Variable", "VariableV2", "SyncDevice",
      "_ScopedAllocator", "_ScopedAllocatorConcat", "_ScopedAllocatorSplit", "_XlaCompile", "_XlaMerge", "_XlaRun",
      "_CopyFromGpuToHost", "_CopyFromHostToGpu", "ExperimentalMapDataset"};
  return *kept;
}

// Above every priority that TensorFlow itself gives (0 to 3).
constexpr int kPriority = 100;

void TakeOverKernels() {
  const tf::KernelList all = tf::GetAllRegisteredKernels();
  for (const tf::KernelDef& def : all.kernel()) {
    if (def.device_type() != tf::DEVICE_GPU || !def.label().empty() || Kept().count(def.op()) != 0) continue;
    auto* copy = new tf::KernelDef(def);  // the registry keeps it
    copy->set_priority(def.priority() + kPriority);
    tf::kernel_factory::OpKernelRegistrar registrar(copy, "PretendedCard", std::make_unique<Factory>());
  }
}

void LeaveGraph(void*, const TF_Buffer* in, const TF_GrapplerItem*, TF_Buffer* out, TF_Status* status) {
  void* copy = std::malloc(in->length);
  std::memcpy(copy, in->data, in->length);
  out->data = copy;
  out->length = in->length;
  out->data_deallocator = [](void* memory, size_t) { std::free(memory); };
  TF_SetStatus(status, TF_OK, "");
}

// The layout optimizer would have convolutions in NCHW, for which the CPU has no kernels, and the remapper makes
// operations that CUDA alone has. An optimizer of a plug-in is the one way to switch them off for all.
void SwitchOffOptimizers(TP_OptimizerRegistrationParams* params, TF_Status* status) {
  params->struct_size = TP_OPTIMIZER_REGISTRATION_PARAMS_STRUCT_SIZE;
  params->device_type = "GPU";
  params->optimizer_configs->struct_size = TP_OPTIMIZER_CONFIGS_STRUCT_SIZE;
  params->optimizer_configs->layout_optimizer = TF_TriState_Off;
  params->optimizer_configs->remapping = TF_TriState_Off;
  params->optimizer->struct_size = TP_OPTIMIZER_STRUCT_SIZE;
  params->optimizer->optimize_func = LeaveGraph;
  TF_SetStatus(status, TF_OK, "");
}

// tensorflow::grappler::InitGraphPlugin(void (*)(TP_OptimizerRegistrationParams*, TF_Status*)), which loads a plug-in's
// part for graphs; no header of the wheel declares it.
constexpr char kInitGraphPlugin[] =
    "_ZN10tensorflow8grappler15InitGraphPluginEPFvP30TP_OptimizerRegistrationParamsP10TSL_StatusE";

__attribute__((constructor)) void OnLoad() {
  TakeOverKernels();
  using Init = void (*)(TP_OptimizerRegistrationParams*, TF_Status*);
  using Register = absl::Status (*)(Init);
  void* library = dlopen("libtensorflow_cc.so.2", RTLD_NOW | RTLD_NOLOAD);
  auto add = library == nullptr ? nullptr : reinterpret_cast<Register>(dlsym(library, kInitGraphPlugin));
  if (add == nullptr || !add(&SwitchOffOptimizers).ok())
    std::fprintf(stderr, "pretended card: the graph optimizers stay on; convolutions in a tf.function may be refused\n");
}

}  // namespace
