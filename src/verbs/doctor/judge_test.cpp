// One machine in order, and one thing after the other spoilt on it: each judgement must see its own, and say what to do.
#include "verbs/doctor/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/doctor/facts_testing.h"

namespace gpumod {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Field;
using testing::HasSubstr;

Error lacks(const std::string& message, const std::string& hint = "") {
  return Error{ErrorCode::environment, message, hint, {}};
}

class DoctorJudge : public testing::Test {
 protected:
  DoctorFacts facts = healthy_facts();

  /// The check of this id says this, with these words and this remedy.
  void expect(const std::string& id, Health state, const std::string& text, const std::string& mend = "") {
    for (const auto& check : judge(facts)) {
      if (check.id != id) continue;
      EXPECT_THAT(check.findings, Contains(AllOf(Field(&Finding::state, state), Field(&Finding::text, HasSubstr(text)),
                                                 Field(&Finding::mend, HasSubstr(mend)))))
          << id;
      EXPECT_EQ(check.state(), state) << id;
      EXPECT_FALSE(check.why.empty());
      return;
    }
    ADD_FAILURE() << "there is no check " << id;
  }
  Service& chat() { return facts.catalog->services["chat"]; }
};

TEST_F(DoctorJudge, AMachineInOrderHasNothingToSay) {
  const auto checks = judge(facts);
  EXPECT_EQ(checks.size(), 24u);
  for (const auto& check : checks) {
    EXPECT_EQ(check.state(), Health::ok) << check.id << ": " << check.findings.front().text;
    EXPECT_FALSE(check.findings.empty()) << check.id;
    EXPECT_TRUE(check.fixes.empty()) << check.id;
  }
  EXPECT_EQ(worst_of(checks), Health::ok);
}

TEST_F(DoctorJudge, EachGroupIsListedOnceAndEachIdIsItsOwn) {
  std::vector<std::string> groups;
  std::set<std::string> ids;
  for (const auto& check : judge(facts)) {
    ids.insert(check.id);
    if (groups.empty() || groups.back() != check.group) groups.push_back(check.group);
  }
  EXPECT_EQ(ids.size(), judge(facts).size());
  EXPECT_THAT(groups,
              testing::ElementsAre("GPU", "Unit manager", "Memory", "Disk", "Engines", "Configuration", "What runs"));
}

TEST_F(DoctorJudge, WhatCouldNotBeFoundOutIsSkippedAndSaysWhy) {
  facts.memory = fail(lacks("the kernel did not answer within 2 s"));
  facts.seen = fail(lacks("the user manager is gone"));
  expect("memory.pressure", Health::skipped, "did not answer");
  expect("memory.guards", Health::skipped, "did not answer");
  expect("runs.orphans", Health::skipped, "manager is gone");
  expect("runs.goal", Health::skipped, "manager is gone");
  expect("files.ports", Health::skipped, "manager is gone");
  expect("gpu.memory", Health::skipped, "manager is gone");
  expect("gpu.driver", Health::ok, "580.65.06, 1 GPU");
}

// --- the driver

TEST_F(DoctorJudge, ADriverThatHangsIsTheFirstThingToKnow) {
  facts.driver_silent = true;
  facts.answer = fail(lacks("the NVIDIA driver did not answer within 10 s"));
  expect("gpu.driver", Health::failure, "did not answer within 10 s", "dmesg");
  facts.driver->stuck = {"python3 (pid 42)"};
  expect("gpu.driver", Health::failure, "in it hang python3 (pid 42)", "reboot");
  expect("gpu.persistence", Health::skipped, "driver");
  expect("gpu.checkpoint", Health::skipped, "driver");
}

TEST_F(DoctorJudge, AnUpdateWithoutAReboot) {
  facts.answer = fail(lacks("Driver/library version mismatch"));
  facts.nvml.version = "590.10";
  expect("gpu.driver", Health::failure, "the library is 590.10, the loaded module 580.65.06", "Reboot");
  facts.nvml.version = "1";  // a name without the driver's version tells nothing
  expect("gpu.driver", Health::failure, "mismatch");
}

TEST_F(DoctorJudge, AModuleThatIsNotLoaded) {
  facts.answer = fail(lacks("driver not loaded"));
  facts.driver->module_loaded = false;
  facts.driver->module_version = "";
  expect("gpu.driver", Health::failure, "module is not loaded", "modprobe nvidia");
  facts.driver->other_driver = "nouveau";
  expect("gpu.driver", Health::failure, "driven by nouveau", "Install");
}

TEST_F(DoctorJudge, NodesThatAreClosed) {
  facts.driver->closed_nodes = {"/dev/nvidia-uvm"};
  expect("gpu.driver", Health::failure, "may not open /dev/nvidia-uvm", "ls -l /dev/nvidia");
  facts.answer = fail(lacks("Insufficient permissions"));
  expect("gpu.driver", Health::failure, "may not open /dev/nvidia-uvm", "ls -l /dev/nvidia");
}

TEST_F(DoctorJudge, AGpuThatIsMissingOrLost) {
  facts.answer->missing = {{1, "Unknown Error"}};
  expect("gpu.driver", Health::failure, "GPU 1 does not work: Unknown Error", "-i 1");
  facts.answer->cards.clear();
  facts.answer->missing.clear();
  expect("gpu.driver", Health::failure, "sees no GPU", "seated");
}

TEST_F(DoctorJudge, NoGpuIsAFailureOnlyForWhoNeedsOne) {
  facts.answer = fail(lacks("cannot load the library", "Install the NVIDIA driver."));
  facts.driver = DriverFacts();
  facts.nvml = facts.cuda = LibraryFacts();
  expect("gpu.driver", Health::failure, "cannot load", "Install");
  chat().vram = Bytes();
  expect("gpu.driver", Health::note, "no NVIDIA GPU here");
  facts.driver->cards = 1;
  expect("gpu.driver", Health::failure, "cannot load", "Install");
}

TEST_F(DoctorJudge, PersistenceMode) {
  facts.answer->cards = {{0, "A", true}, {1, "B", false}};
  expect("gpu.persistence", Health::warning, "GPU 1 (B): off", "nvidia-persistenced");
}

TEST_F(DoctorJudge, WhoHoldsTheMemory) {
  Holding game;
  game.name = "game.exe";
  game.user = "bob";
  game.used = Bytes::gib(5);
  game.processes = {{4242, Bytes::gib(5)}};
  auto& account = facts.seen->ledgers[0].account;
  account.foreign = Bytes::gib(5);
  account.holdings = {game};
  expect("gpu.memory", Health::note, "game.exe (pid 4242, bob) 5120 MiB", "gpu processes");
  account.unattributed = Bytes::gib(3);
  expect("gpu.memory", Health::warning, "3072 MiB are in use, and no process explains them", "fuser");
}

TEST_F(DoctorJudge, Checkpoints) {
  facts.memory->ptrace_scope = 2;
  expect("gpu.checkpoint", Health::note, "ptrace_scope is 2", "sysctl");
  facts.cuda.has_symbol = false;
  expect("gpu.checkpoint", Health::note, "no checkpoint functions");
  facts.cuda.there = false;
  expect("gpu.checkpoint", Health::note, "not installed");
  facts.answer->version = "565.57.01";
  expect("gpu.checkpoint", Health::note, "driver 565.57.01 cannot", "570");
}

TEST_F(DoctorJudge, MemoryThatASuspendTakes) {
  facts.driver->keeps_memory = false;
  expect("gpu.suspend", Health::note, "VRAM is lost", "NVreg_PreserveVideoMemoryAllocations=1");
  facts.memory->least_oom_score.erase("gnome-shell");
  expect("gpu.suspend", Health::ok, "without a desktop");
  facts.driver->keeps_memory = std::nullopt;
  expect("gpu.suspend", Health::skipped, "does not say");
}

// --- the unit manager

TEST_F(DoctorJudge, AnAdoptedUnitThatIsNotThere) {
  chat().unit = "glm-code.service";
  expect("units.adopted", Health::failure, "'chat' has unit: glm-code.service", "services/chat.yaml");
  facts.seen->snapshot.units["glm-code.service"].exists = true;
  expect("units.adopted", Health::ok, "1 adopted");
}

TEST_F(DoctorJudge, AUnitManagerThatIsNotThere) {
  facts.manager = fail(lacks("no systemd user manager runs for this user", "Log in"));
  expect("units.manager", Health::failure, "no systemd user manager", "Log in");
  expect("units.cgroups", Health::skipped, "does not answer");
  expect("units.limits", Health::skipped, "does not answer");
}

TEST_F(DoctorJudge, TheLocalSupervisorNeedsNoneOfIt) {
  facts.local = true;
  facts.lingers = false;
  expect("units.manager", Health::ok, "local");
  expect("units.linger", Health::skipped, "local");
  expect("units.cgroups", Health::skipped, "local");
}

TEST_F(DoctorJudge, WhoMayNotReadTheSystemsJournalIsToldWhatThatCosts) {
  facts.journal_hidden = true;
  expect("units.journal", Health::note, "ann may not read the system's journal", "usermod -aG systemd-journal");
  facts.local = true;
  expect("units.journal", Health::skipped, "keeps the logs itself");
}

TEST_F(DoctorJudge, WithoutLingeringThereIsSomethingToFix) {
  facts.lingers = false;
  expect("units.linger", Health::warning, "off for ann", "loginctl enable-linger");
  const auto check = judge_linger(facts);
  ASSERT_EQ(check.fixes.size(), 1u);
  EXPECT_EQ(check.fixes[0].kind, Fix::Kind::enable_linger);
  EXPECT_EQ(check.fixes[0].subject, "ann");
}

TEST_F(DoctorJudge, ControllersThatAreNotDelegated) {
  facts.manager->controllers = {"memory", "pids"};
  expect("units.cgroups", Health::note, "not delegated to this user: cpu, io", "Delegate=");
  facts.manager->controllers = {"pids"};
  expect("units.cgroups", Health::warning, "memory, cpu, io", "Delegate=");
  facts.manager->own_hierarchy = false;
  expect("units.cgroups", Health::warning, "no cgroup2", "unified_cgroup_hierarchy");
}

TEST_F(DoctorJudge, Limits) {
  facts.manager->nofile = {1024, 1024};
  expect("units.limits", Health::warning, "only 1024 files", "LimitNOFILE");
  facts.manager->nofile = {1024, 524288};
  chat().extra_args = {"--mlock"};
  expect("units.limits", Health::warning, "'chat' has --mlock, and may lock only 8 MiB", "MEMLOCK=infinity");
  facts.manager->memlock = {UINT64_MAX, UINT64_MAX};
  expect("units.limits", Health::ok, "unlimited of locked memory");
}

// --- memory

TEST_F(DoctorJudge, WhatFreezesAHost) {
  facts.memory->swap = Bytes();
  expect("memory.pressure", Health::warning, "no swap", "zram");
  facts.memory->swap = Bytes::gib(1);
  facts.memory->vm["overcommit_memory"] = 2;
  expect("memory.pressure", Health::warning, "overcommit_memory is 2", "sysctl vm.overcommit_memory=0");
  facts.memory->vm = {{"swappiness", 150}};
  expect("memory.pressure", Health::warning, "swappiness is 150", "vm.swappiness=60");
  facts.memory->swap_is_zram = true;
  expect("memory.pressure", Health::ok, "(zram)");
  facts.memory->vm = {{"swappiness", 0}};
  expect("memory.pressure", Health::note, "swappiness is 0", "vm.swappiness=10");
  facts.memory->vm = {{"min_free_kbytes", 8192}};
  expect("memory.pressure", Health::note, "min_free_kbytes is 8192", "min_free_kbytes=67584");
  facts.memory->total = Bytes::gib(8);
  facts.memory->available = Bytes::gib(4);
  expect("memory.pressure", Health::ok, "available");
}

TEST_F(DoctorJudge, AHostThatStallsNow) {
  facts.memory->stalled = 12;
  expect("memory.pressure", Health::warning, "wait for memory 12 % of the time", "ps aux");
  facts.memory->stalled = 55;
  expect("memory.pressure", Health::failure, "wait for memory 55 %", "ps aux");
  facts.memory->stalled = std::nullopt;
  facts.memory->available = Bytes::gib(3);
  expect("memory.pressure", Health::warning, "only 3072 MiB of 65536 MiB", "ps aux");
}

TEST_F(DoctorJudge, WhoIsEndedFirst) {
  facts.memory->least_oom_score["sshd"] = 0;
  expect("memory.guards", Health::warning, "sshd is not protected", "OOMScoreAdjust=-1000");
  facts.memory->least_oom_score = {{"gnome-shell", 200}};
  expect("memory.guards", Health::note, "gnome-shell is as likely to be ended", "DefaultOOMScoreAdjust");
  facts.memory->least_oom_score.clear();
  facts.memory->guards.clear();
  expect("memory.guards", Health::warning, "neither earlyoom nor systemd-oomd", "apt install earlyoom");
}

TEST_F(DoctorJudge, WhatSleepsTogetherMustFit) {
  chat().sleep = SleepAbility::level1;
  auto second = service_named("tts", 7072);
  second.sleep = SleepAbility::level1;
  second.vram = Bytes::gib(40);
  facts.catalog->services["tts"] = second;
  expect("memory.sleep", Health::ok, "fits");  // never in one mode
  facts.catalog->modes["code"].services = {"chat", "tts"};
  expect("memory.sleep", Health::ok, "fits");  // 16 of files and 40 declared
  facts.catalog->services["tts"].vram = Bytes::gib(43);
  expect("memory.sleep", Health::warning, "mode code: chat and tts asleep together keep 60416 MiB", "level 2");
  facts.catalog->services["tts"].vram = std::nullopt;
  expect("memory.sleep", Health::note, "'tts': how much it would keep is not known", "services/tts.yaml");
}

TEST_F(DoctorJudge, SharedMemoryForSeveralGpus) {
  facts.shared_memory = Bytes::mib(64);
  expect("memory.shared", Health::ok, "64 MiB");
  std::get<VllmOptions>(chat().options).tensor_parallel_size = 2;
  expect("memory.shared", Health::warning, "'chat' uses several GPUs, and /dev/shm has only 64 MiB", "remount");
  std::get<VllmOptions>(chat().options).tensor_parallel_size.reset();
  chat().extra_args = {"--pipeline-parallel-size=2"};
  expect("memory.shared", Health::warning, "'chat' uses several GPUs", "remount");
}

// --- disks and programs

TEST_F(DoctorJudge, FoldersThatOthersMayUse) {
  facts.folders[2].mode = 0770;
  expect("disk.folders", Health::failure, "others may write to the runtime folder", "chmod 700");
  ASSERT_EQ(judge_folders(facts).fixes.size(), 1u);
  EXPECT_EQ(judge_folders(facts).fixes[0].kind, Fix::Kind::restrict_mode);
  EXPECT_EQ(judge_folders(facts).fixes[0].mode, 0700u);
  facts.folders[2].mode = 0700;
  facts.folders[1].mode = 0755;
  expect("disk.folders", Health::warning, "others may look into the state folder", "chmod 700");
  facts.folders[1].mode = 0700;
  facts.folders[0].mode = 0775;
  expect("disk.folders", Health::warning, "which programs run as you", "chmod 755");
}

TEST_F(DoctorJudge, FoldersThatCannotBeUsed) {
  auto& state = facts.folders[1];
  state.is_folder = false;
  expect("disk.folders", Health::failure, "is no folder");
  state.is_folder = true;
  state.ours = false;
  expect("disk.folders", Health::failure, "belongs to somebody else", "chown");
  state.there = false;
  state.can_be_made = false;
  expect("disk.folders", Health::failure, "cannot be made", "ls -ld");
  state.can_be_made = true;
  expect("disk.folders", Health::ok, "free for the state");
  facts.folders[0].there = false;
  expect("disk.folders", Health::note, "/home/ann/.config/gpumod is not there yet", "gpumod init");
  ASSERT_EQ(judge_folders(facts).fixes.size(), 1u);
  EXPECT_EQ(judge_folders(facts).fixes[0].kind, Fix::Kind::make_folder);
}

TEST_F(DoctorJudge, AFolderWhoseDiskHangs) {
  facts.folders[1].problem = "/home/ann/.local/state/gpumod did not answer within 2 s";
  expect("disk.folders", Health::failure, "did not answer within 2 s", "mount");
}

TEST_F(DoctorJudge, DisksThatAreFull) {
  auto& disk = facts.folders[1].disk;
  disk.free = Bytes::mib(500);
  expect("disk.folders", Health::warning, "500 MiB are left", "df -h");
  disk.free = Bytes::mib(10);
  expect("disk.folders", Health::failure, "is full (10 MiB left)", "df -h");
  disk.free = Bytes::gib(10);
  disk.no_inodes = true;
  expect("disk.folders", Health::failure, "takes no more files");
  disk.read_only = true;
  expect("disk.folders", Health::failure, "read-only", "dmesg");
}

TEST_F(DoctorJudge, ModelsOnSlowDisks) {
  auto& model = facts.models[0];
  chat().startup_timeout = 300s;
  model.disk->rotational = true;
  expect("disk.models", Health::note, "a disk that turns");
  chat().startup_timeout = 60s;
  expect("disk.models", Health::warning, "'chat' may take less to start", "startup_timeout");
  model.disk->rotational = std::nullopt;
  model.remote = "nfs4";
  expect("disk.models", Health::warning, "the network (nfs4)", "SSD");
  model.disk = fail(lacks("its disk did not answer within 2 s", "See `mount`"));
  expect("disk.models", Health::failure, "/models/qwen: its disk did not answer", "mount");
}

TEST_F(DoctorJudge, ModelsThatAreMissingOrLargerThanTheHost) {
  facts.models[0].size = Bytes::gib(70);
  expect("disk.models", Health::note, "the models of mode code (71680 MiB) do not fit into host memory");
  facts.models[0].size = Bytes();
  expect("disk.models", Health::failure, "the model of 'chat' is not there: /models/qwen", "model list");
  facts.models[0].may_download = true;
  expect("disk.models", Health::ok, "1 model");
}

TEST_F(DoctorJudge, ProgramsThatDoNotRun) {
  facts.programs[0].problem = lacks("service 'chat': vllm was not found in PATH", "Install it");
  expect("engines.programs", Health::failure, "was not found in PATH", "Install it");
}

TEST_F(DoctorJudge, EnvironmentsThatLostTheirPython) {
  facts.programs[0].environment_python = "python3.13";
  expect("engines.environments", Health::failure,
         "/opt/vllm holds packages for python3.11, and its Python is python3.13 now: 'chat' cannot start",
         "venv --clear /opt/vllm");
  facts.programs[0].packages_for = {"python3.11", "python3.13"};
  expect("engines.environments", Health::ok, "1 environment");
  facts.programs[0].environment_python = "";
  facts.programs[0].problem = lacks("/opt/vllm/bin/vllm cannot be started");
  expect("engines.environments", Health::failure, "/opt/vllm has lost its Python", "venv --clear /opt/vllm");
  expect("engines.programs", Health::ok, "");  // told once
}

// --- files and what runs

TEST_F(DoctorJudge, FilesWithProblems) {
  facts.catalog->problems = {{Severity::warning, {"a.yaml", 1, 2}, "odd", "so"}};
  facts.catalog->open_env_files = {"/keys.env"};
  expect("files.catalogue", Health::warning, "a.yaml:1:2: odd", "so");
  ASSERT_EQ(judge_catalog(facts).fixes.size(), 1u);
  EXPECT_EQ(describe(judge_catalog(facts).fixes[0]), "set the mode of /keys.env to 0600");
  facts.catalog->problems.assign(7, {Severity::error, {"b.yaml", 3, 4}, "wrong", "mend"});
  expect("files.catalogue", Health::failure, "b.yaml:3:4: wrong", "mend");
  EXPECT_THAT(judge_catalog(facts).findings.back().text, HasSubstr("2 more problems"));
  facts.catalog = fail(lacks("is not a directory"));
  expect("files.catalogue", Health::failure, "is not a directory");
}

TEST_F(DoctorJudge, AnEmptyCatalogue) {
  facts.catalog = Catalog();
  expect("files.catalogue", Health::note, "no service is defined yet", "gpumod init");
}

TEST_F(DoctorJudge, PortsThatOthersHave) {
  PortHolder stranger;
  stranger.port = 7071;
  stranger.pid = 99;
  stranger.command = "nginx";
  stranger.user = "root";
  facts.seen->snapshot.ports = {stranger};
  expect("files.ports", Health::failure, "port 7071 of 'chat' is taken by pid 99 (nginx, root)", "services/chat.yaml");
  facts.state->goal = std::nullopt;
  expect("files.ports", Health::warning, "port 7071 of 'chat' is taken by pid 99");
  facts.seen->snapshot.ports[0].pid = 0;
  expect("files.ports", Health::warning, "taken by a process of root", "ss -ltnp");
  facts.seen->snapshot.ports[0].unit = "gpumod-chat.service";
  expect("files.ports", Health::ok, "0 free, 1 in use by services");
  chat().port = 40000;
  expect("files.ports", Health::note, "40000 ('chat') to an outgoing connection", "below 32768");
}

TEST_F(DoctorJudge, SwitchesThatWereCutOff) {
  facts.state->under_way = "mode switch rag (pid 4, since now)";
  expect("runs.switch", Health::note, "under way: mode switch rag", "mode cancel");
  facts.state->problem = "the state file is damaged";
  expect("runs.switch", Health::warning, "damaged");
  facts.state->interrupted = "switch 7 was interrupted";
  facts.state->what_to_do = "gpumod repair finishes it.";
  expect("runs.switch", Health::failure, "switch 7 was interrupted", "gpumod repair");
  facts.state = fail(lacks("state.db cannot be opened"));
  expect("runs.switch", Health::failure, "cannot be opened");
}

TEST_F(DoctorJudge, Orphans) {
  UnitStatus old;
  old.name = "gpumod-old.service";
  old.active = ActiveState::active;
  facts.seen->snapshot.units[old.name] = old;
  expect("runs.orphans", Health::warning, "gpumod-old.service is active, and no file defines it", "gpumod repair");
  facts.seen->snapshot.units.clear();
  Holding escaped;
  escaped.kind = Holding::Kind::orphan;
  escaped.why = Holding::Why::escaped;
  escaped.services = {"chat"};
  escaped.used = Bytes::gib(2);
  escaped.processes = {{77, Bytes::gib(2)}};
  facts.seen->ledgers[0].account.holdings = {escaped};
  expect("runs.orphans", Health::warning, "pid 77 has left the unit of 'chat' and holds 2048 MiB of GPU 0", "kill 77");
}

TEST_F(DoctorJudge, WhatShouldRunAndDoesNot) {
  facts.seen->differences = {
      {Difference::Kind::unwanted, "tts", "stopped", Residency::running, "tts runs, and should not"}};
  expect("runs.goal", Health::warning, "tts runs", "gpumod repair");
  facts.seen->differences[0].kind = Difference::Kind::dead;
  expect("runs.goal", Health::failure, "tts runs", "gpumod repair");
  facts.seen->differences[0].kind = Difference::Kind::interrupted;
  expect("runs.goal", Health::ok, "mode code");
  facts.state->interrupted = "switch 7 was interrupted";
  expect("runs.goal", Health::skipped, "has not ended");
}

}  // namespace
}  // namespace gpumod
