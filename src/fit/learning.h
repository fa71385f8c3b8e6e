// What runs teach: which of them count, and what several of them come to. Pure.
#pragma once

#include "model/footprint.h"
#include "model/gpu.h"
#include "model/snapshot.h"

namespace gpumod {

/// May this peak stand for what the service takes? Not when it may have been squeezed: a llama-server that may shrink
/// itself must have held the weights and caches of its estimate, or memory must have been left over: who shrinks leaves as
/// much as it was told to (1 GiB), or little more. `least_free` on that GPU while it came up; unset: not known.
bool may_be_learned(const Service& service, const Footprint& known, const GpuSample& gpu, Bytes peak,
                    std::optional<Bytes> least_free);

/// What these runs, all of one subject under one key on one kind of GPU, come to. They may be in any order.
MeasuredFootprint summary_of(const std::vector<Measurement>& runs);

/// By GPU, what measurements of one subject come to.
std::map<std::string, MeasuredFootprint> summaries_of(const std::vector<Measurement>& runs);

/// What was seen of it on the first of these GPUs ("" where there is none); null when nothing was.
const MeasuredFootprint* measured_on(const Footprint& known, const std::vector<GpuIndex>& gpus,
                                     const std::vector<GpuSample>& samples);

/// The name under which that is kept; unset while none of them can be read.
std::optional<std::string> gpu_name(const std::vector<GpuIndex>& gpus, const std::vector<GpuSample>& samples);

/// How long these phases take together. Unset: one of them was never seen.
std::optional<Duration> seconds_of(const MeasuredFootprint* measured, std::initializer_list<Phase> phases);

/// How long to be patient with a phase that has been seen to take so long: never less than `floor` (people's
/// startup_timeout), and at most three times that.
Duration patience_for(const PhaseSeconds& seen, Duration floor);

/// Two amounts that are meant to be the same differ by more than a tenth of the better known one.
bool disagree(Bytes better_known, Bytes other);

}  // namespace gpumod
