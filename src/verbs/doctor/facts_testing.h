// For tests: a machine on which everything is in order. Each test spoils one thing.
#pragma once

#include <string>

#include "verbs/doctor/judge.h"

namespace gpumod {

inline Service service_named(const std::string& id, std::uint16_t port) {
  Service service;
  service.id = id;
  service.port = port;
  service.vram = Bytes::gib(8);
  service.source = {"services/" + id + ".yaml", 1, 1};
  return service;
}

inline DoctorFacts healthy_facts() {
  DoctorFacts facts;
  facts.user = "ann";
  facts.lingers = true;
  Catalog catalog;
  catalog.services["chat"] = service_named("chat", 7071);
  catalog.services["chat"].options = VllmOptions{};
  catalog.modes["code"] = Mode{"code", "code", "", {"chat"}, {}, OnFailure::rollback, {}};
  facts.catalog = catalog;
  facts.driver = DriverFacts{1, "", true, "580.65.06", true, {}, {}};
  facts.answer = DriverAnswer{"580.65.06", {{0, "RTX 4090", true}}, {}};
  facts.nvml = {true, "580.65.06", false};
  facts.cuda = {true, "580.65.06", true};
  MemoryFacts memory;
  memory.total = Bytes::gib(64);
  memory.available = Bytes::gib(40);
  memory.swap = Bytes::gib(8);
  memory.vm = {{"swappiness", 60}, {"overcommit_memory", 0}, {"min_free_kbytes", 67584}};
  memory.stalled = 0.1;
  memory.guards = {"earlyoom"};
  memory.least_oom_score = {{"sshd", -1000}, {"gnome-shell", 0}};
  memory.first_own_port = 32768;
  memory.last_own_port = 60999;
  facts.memory = memory;
  facts.shared_memory = Bytes::gib(32);
  ManagerFacts manager;
  manager.version = "252.30";
  manager.memlock = {8 << 20, 8 << 20};
  manager.nofile = {1024, 524288};
  manager.oom_score_adjust = 200;
  manager.own_hierarchy = true;
  manager.controllers = {"cpu", "io", "memory", "pids"};
  facts.manager = manager;
  FolderFacts state;
  state.purpose = "state";
  state.path = "/home/ann/.local/state/gpumod";
  state.there = state.is_folder = state.ours = true;
  state.mode = 0700;
  state.disk = {state.path, true, Bytes::gib(100), false, false, false};
  auto config = state, runtime = state;
  config.purpose = "configuration";
  config.path = "/home/ann/.config/gpumod";
  runtime.purpose = "runtime";
  runtime.path = "/run/user/1000/gpumod";
  facts.folders = {config, state, runtime};
  ProgramFacts program;
  program.path = "/opt/vllm/bin/vllm";
  program.services = {"chat"};
  program.version = "0.11.0";
  program.environment = "/opt/vllm";
  program.environment_python = "python3.11";
  program.packages_for = {"python3.11"};
  facts.programs = {program};
  WeightsFacts model;
  model.path = "/models/qwen";
  model.services = {"chat"};
  model.size = Bytes::gib(16);
  model.disk = DiskFacts{"/models/qwen", true, Bytes::gib(100), false, false, false};
  facts.models = {model};
  facts.state = StoredFacts{Goal{"code", {{"chat", Residency::running}}, true}, "", "", "", ""};
  SeenFacts seen;
  GpuSample gpu;
  gpu.total = Bytes::gib(24);
  gpu.free = Bytes::gib(23);
  seen.snapshot.gpus = {gpu};
  GpuLedger ledger;
  ledger.account.total = gpu.total;
  ledger.account.free = gpu.free;
  ledger.account.unattributed = Bytes();
  seen.ledgers = {ledger};
  facts.seen = seen;
  return facts;
}

}  // namespace gpumod
