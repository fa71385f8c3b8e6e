// What a service takes of the GPUs and how long it needs, by every source beside each other, and where the sources disagree.
// Pure.
#pragma once

#include <boost/json/object.hpp>

#include "model/footprint.h"
#include "model/gpu.h"

namespace gpumod {

/// {"declared","estimated":{"total","reserve","weights","kv","compute","context","rough","assumptions"},"not_estimated",
///  "measured":[{"gpu","peak","steady":{…},"runs","newest","seconds":{PHASE:{"median","spread","runs"}}}],
///  "claims":[{"gpu","name","bytes","source"}],"warnings":[…]}; bytes, seconds, and null for what is not known.
boost::json::object describe_memory(const Service& service, const Footprint& known, const std::vector<GpuSample>& gpus);

/// Where two sources differ by more than a tenth, in sentences.
std::vector<std::string> disagreements(const Service& service, const Footprint& known,
                                       const std::vector<GpuSample>& gpus);

}  // namespace gpumod
