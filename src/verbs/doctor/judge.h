// From what was found to what is to be said of it. Pure: no clock, no file, no question to anybody, so that each
// judgement can be tested with facts that nobody's machine has. Thresholds stand beside the judgement that uses them.
#pragma once

#include <vector>

#include "verbs/doctor/check.h"
#include "verbs/doctor/facts.h"

namespace gpumod {

Check judge_driver(const DoctorFacts& facts);
Check judge_persistence(const DoctorFacts& facts);
Check judge_gpu_memory(const DoctorFacts& facts);
Check judge_checkpoint(const DoctorFacts& facts);
Check judge_suspend(const DoctorFacts& facts);

Check judge_manager(const DoctorFacts& facts);
Check judge_linger(const DoctorFacts& facts);
Check judge_journal(const DoctorFacts& facts);
Check judge_adopted(const DoctorFacts& facts);
Check judge_cgroups(const DoctorFacts& facts);
Check judge_limits(const DoctorFacts& facts);

Check judge_pressure(const DoctorFacts& facts);
Check judge_guards(const DoctorFacts& facts);
Check judge_sleep_memory(const DoctorFacts& facts);
Check judge_shared_memory(const DoctorFacts& facts);

Check judge_folders(const DoctorFacts& facts);
Check judge_models(const DoctorFacts& facts);

Check judge_programs(const DoctorFacts& facts);
Check judge_environments(const DoctorFacts& facts);

Check judge_catalog(const DoctorFacts& facts);
Check judge_ports(const DoctorFacts& facts);

Check judge_switch(const DoctorFacts& facts);
Check judge_orphans(const DoctorFacts& facts);
Check judge_goal(const DoctorFacts& facts);

/// All of them, in the order in which they are listed. One that breaks says so in its place.
std::vector<Check> judge(const DoctorFacts& facts);

}  // namespace gpumod
