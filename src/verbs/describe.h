// What several verbs say alike of services, modes and the machine.
#pragma once

#include <boost/json.hpp>

#include "catalog/catalog.h"
#include "model/ledger.h"
#include "model/snapshot.h"
#include "verbs/drift.h"

namespace gpumod {

/// {"id","name","engine","port","unit","router","vram","sleep","source"}: what the file says.
boost::json::object describe_declared(const Service& service);
/// Adds "state", "detail", "pid", "vram_used" as observed. `catalog` and `snapshot` of the same moment.
void describe_observed(boost::json::object& line, const Service& service, const Snapshot& snapshot);
/// "kept files are fine" or one line per problem: [{"severity","where","message","hint"}].
boost::json::array describe_problems(const Catalog& catalog);
/// Ours, but nothing in the catalogue or the goal wants it: [{"unit","tag","state","pids"}].
boost::json::array describe_orphans(const Snapshot& snapshot, const Catalog& catalog);
/// [{"service","kind","wanted","is","text"}], see drift.h.
boost::json::array describe_differences(const std::vector<Difference>& differences);
/// [{"index","uuid","name","mig","total","reserved","free","processes":[…],"ledger":{…}}]; `holder` of a process as in
/// the ledger.
boost::json::array describe_gpus(const Snapshot& snapshot, const std::vector<GpuLedger>& ledgers);
/// {"total","reserved","managed","orphan","foreign","unattributed","free","used","overcounted","holders":[{"holder",
/// "why","name","services","unit","user","used","complete","processes":[{"pid","used"}]}],"slices":[…]}: see
/// model/ledger.h. A slice is {"gpu_instance","devices":[{"uuid","name","compute_instance"}]} and the same figures.
boost::json::object describe_ledger(const GpuLedger& ledger);

}  // namespace gpumod
