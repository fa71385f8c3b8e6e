// A recording as JSON: how it is stored, and how scripts get it.
//
//   {"id","kind","from","to","began","seconds","predicted_seconds","result","partial",
//    "failure": null or {"cause","remedy","step"},
//    "steps": [{"step","action","subject","service","unit","undo","result","attempts","began","ended","seconds",
//               "predicted_seconds","note","after":[…],"phases":[{"name","attempt","from","until"}],
//               "troubles":[{"attempt","at","cause","remedy","log":[…]}]}],
//    "waits": [{"step","for","cause","from","until"}],
//    "gpus": [{"index","name","total","predicted_peak","peak"}],
//    "curve": [{"at","gpu","used","held":{NAME: BYTES},"unheld"}]}
//
// Times are seconds since "began", which is RFC 3339; memory is bytes. What is not known is null.
#pragma once

#include <boost/json/object.hpp>

#include "model/recording.h"

namespace gpumod {

boost::json::object to_json(const Recording& recording);
/// Members that are missing, or of another kind, are left as they are in a new recording. Errors: failed when it is no
/// object at all.
Result<Recording> recording_from_json(const boost::json::value& value);

}  // namespace gpumod
