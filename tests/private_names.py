"""The ledger of private names: which names of libraries the package uses that these do not promise to keep, and why.

An upgrade of one of these libraries has this list to go through. Their versions are bounded in setup.cfg for it.
"""

from __future__ import annotations

from dataclasses import dataclass

PARTITION = "deepspeed.runtime.zero.partition_parameters"
OFFLOAD = "deepspeed.runtime.zero.parameter_offload"
COORDINATOR = "deepspeed.runtime.zero.partitioned_param_coordinator"
TUNERS = "peft.tuners.tuners_utils"


@dataclass(frozen=True)
class Private:
    """A name that is used, replaced or overridden."""

    file: str
    """The file of this package that does so."""
    owner: str
    """Module of the library, and after a colon what has the name there."""
    name: str
    why: str

    @property
    def library(self) -> str:
        """The library, as it is imported."""
        return self.owner.partition(":")[0].partition(".")[0]


def _all(file: str, owner: str, names: str, why: str) -> list[Private]:
    return [Private(f"trex_ds/{file}", owner, name, why) for name in names.split()]


LEDGER = [
    # PEFT: a routed method is a tuner of PEFT's.
    *_all(
        "adapters/model.py",
        f"{TUNERS}:BaseTuner",
        "_pre_injection_hook _post_injection_hook _check_new_adapter_config _check_target_module_exists "
        "_create_and_replace _enable_adapter_layers _replace_module",
        "PEFT's way to make a tuner",
    ),
    *_all("adapters/model.py", f"{TUNERS}:BaseTunerLayer", "_active_adapter", "PEFT sets it without checking it"),
    *_all("adapters/layer.py", f"{TUNERS}:BaseTunerLayer", "_move_adapter_to_device_of_base_layer", "as its layers do"),
    *_all("adapters/trex.py", "peft.config:PeftConfigMixin", "_split_kwargs", "options of a download from the hub"),
    # transformers
    *_all(
        "training/trainer.py", "transformers:Trainer", "_prepare_inputs _save", "intuition stays in float32; file modes"
    ),
    *_all("comparison/tuning.py", "transformers:Trainer", "_prepare_inputs", "batches as in training"),
    *_all(
        "reporting/engine.py",
        "transformers:Trainer",
        "_prepare_for_training _build_accelerator_args",
        "steps of several trainers in turn",
    ),
    *(
        private
        for file in ("adapters/passes.py", "bf16_matmul.py", "evaluation/batches.py")
        for private in _all(file, "transformers:PreTrainedConfig", "_attn_implementation", "the attention of a model")
    ),
    # accelerate: one state a process, which several engines share.
    *_all("reporting/engine.py", "accelerate.state:AcceleratorState", "_shared_state", "is there an engine yet"),
    *_all("reporting/engine.py", "accelerate.state:GradientState", "_set_sync_gradients", "as Trainer.train does it"),
    # DeepSpeed
    *_all(
        "modeling/zero3.py",
        f"{COORDINATOR}:PartitionedParameterCoordinator",
        "_PartitionedParameterCoordinator__params_to_release",
        "a cache that keeps models alive",
    ),
    *_all("modeling/zero3.py", OFFLOAD, "FWD_MODULE_STACK", "a list that keeps models alive"),
    *(
        private
        for file in ("modeling/zero3.py", "planning/step_profile.py")
        for private in _all(
            file,
            f"{OFFLOAD}:DeepSpeedZeRoOffload",
            "setup_zero_stage3_hooks forward_hooks backward_hooks",
            "evaluation without hooks; plans with the hooks alone",
        )
    ),
    *_all("modeling/zero3.py", f"{OFFLOAD}:DeepSpeedZeRoOffload", "fwd_pre_hook", "a hook to take off"),
    *_all(
        "planning/step_profile.py",
        f"{OFFLOAD}:DeepSpeedZeRoOffload",
        "param_coordinator zenflow pre_bwd_fn post_bwd_fn applied_pre_backward_ref_cnt",
        "plans run its hooks without its __init__",
    ),
    *_all("planning/gathers.py", PARTITION, "_init_external_params", "tensors of adapters are gathered by hand"),
    *(
        private
        for file in ("adapters/layer.py", "planning/gathers.py")
        for private in _all(file, PARTITION, "_external_params", "tensors of adapters are gathered by hand")
    ),
    *_all(
        "planning/gathers.py",
        PARTITION,
        "ds_id ds_numel ds_shape ds_persist ds_status ds_active_sub_modules is_external_param ds_secondary_tensor "
        "nvme_swapper ds_tensor partition_numel all_gather_coalesced partition ds_summary",
        "stand-ins for what sharding gives a parameter",
    ),
    *_all("modeling/zero3.py", PARTITION, "ds_active_sub_modules", "whole weights stay"),
    *_all(
        "planning/gathers.py",
        COORDINATOR,
        "print_rank_0 assert_ints_same_as_other_ranks",
        "replaced: they need a process group",
    ),
    # torch
    *(
        private
        for file in ("planning/gathers.py", "planning/step_profile.py")
        for private in _all(file, "torch:_C", "_current_graph_task_id", "replaced: a pass on the meta device")
    ),
    *(
        private
        for file in ("planning/gathers.py", "planning/step_profile.py")
        for private in _all(file, "torch", "_C", "has the name above")
    ),
    *_all("planning/live_bytes.py", "torch.utils._python_dispatch", "TorchDispatchMode", "sees every operator"),
    *_all("planning/live_bytes.py", "torch._ops:OpOverload", "_overloadpacket", "the operator's name"),
    *_all("bf16_matmul.py", "torch:ops.mkldnn", "_is_mkldnn_bf16_supported", "whether the CPU multiplies bfloat16"),
    *_all("adapters/trex_router.py", "torch.nn:Module", "_parameters", "parameters by name, where DeepSpeed wraps it"),
    *_all("adapters/balance.py", "torch.nn:Module", "_apply", "a buffer that stays in float32"),
    # lm-eval
    *_all("evaluation/harness.py", "lm_eval.api.task:ConfigurableTask", "_config", "a task that asks chosen documents"),
    *_all("tasks/harness/scoring.py", "lm_eval.api.task:Task", "_instances", "scores of one document"),
    *_all(
        "evaluation/harness_model.py", "lm_eval.api.model:TemplateLM", "_loglikelihood_tokens", "lm-eval's own way in"
    ),
    *_all("tasks/harness/index.py", "lm_eval.api.task", "tqdm", "replaced: no bars"),
    *_all("tasks/harness/index.py", "lm_eval.api.model", "tqdm", "replaced: no bars"),
    *_all("tasks/harness/draws.py", "lm_eval.config.task:TaskConfig", "__post_init__", "replaced: draws of a document"),
    # Others
    *_all("tasks/harness/loading.py", "datasets", "load_dataset", "replaced: mirrors, revisions"),
    *_all("modeling/embedded.py", "gguf", "GGUFReader", "replaced: transformers reads the file twice"),
    *_all(
        "adapters/peft_type.py",
        "peft.utils.peft_types:PeftType",
        "_member_map_ _value2member_map_ _member_names_",
        "a member more of PEFT's enum",
    ),
    *_all(
        "adapters/peft_type.py", "peft.utils.peft_types:PeftType.LORA", "_name_ _value_", "a member more of its enum"
    ),
]
