#include "verbs/subjects.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "control/footprints.h"
#include "control/model_place.h"
#include "fit/llama_flags.h"
#include "fit/vllm_flags.h"
#include "fit/what_if.h"
#include "formats/model_file.h"
#include "formats/model_files.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t most_files_in_a_folder = 64;

void read_one(const ServiceId& id, const Catalog& catalog, const fs::path& home, Subjects& out) {
  const auto& service = out.knowledge.services.at(id);
  Subject subject;
  subject.service = &service;
  subject.known = &out.knowledge.footprints[id];
  const auto added = additions_of(catalog, service);
  const bool on_gpu = service.vram != Bytes(0);
  if (const auto path = on_gpu ? model_path_of(service, added, home) : fs::path(); !path.empty()) {
    auto facts = read_model(path);
    const bool of_its_engine = facts && (facts->format == ModelFormat::gguf) == (service.llama() != nullptr);
    if (!facts)
      out.unread[id] = facts.error().message;
    else if (of_its_engine && !facts->tensors.empty())
      subject.model = &out.models.emplace_back(std::move(*facts));
  }
  subject.words = added.words;
  if (service.llama()) {
    auto flags = llama_flags_of(service, subject.words);
    if (flags)
      subject.flags = std::move(*flags);
    else
      out.unread.emplace(id, flags.error().message);
  } else if (service.vllm()) {
    if (const auto flags = vllm_flags_of(service, subject.words, {}); !flags)
      out.unread.emplace(id, flags.error().message);
  }
  out.subjects.push_back(std::move(subject));
}

std::vector<fs::path> ggufs_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code problem;
  for (fs::directory_iterator each(folder, problem), end; !problem && each != end; each.increment(problem)) {
    const auto& path = each->path();
    if (!is_gguf_name(path.filename().string())) continue;
    const auto stem = path.stem().string();
    const auto part = stem.rfind("-of-");
    if (part != std::string::npos && part >= 6 && stem.compare(part - 6, 6, "-00001") != 0) continue;  // of a series
    files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  if (files.size() > most_files_in_a_folder) files.resize(most_files_in_a_folder);
  return files;
}

void read_others(Subjects& all) {
  std::map<fs::path, const ModelFacts*> read;
  for (auto& subject : all.subjects) {
    if (!subject.flags || !subject.model || subject.model->files.empty()) continue;
    const auto& own = subject.model->files.front();
    for (const auto& file : ggufs_in(own.parent_path())) {
      if (file == own) continue;
      if (!read.contains(file)) {
        auto facts = read_model(file);
        read[file] = facts ? &all.models.emplace_back(std::move(*facts)) : nullptr;
      }
      const auto* other = read[file];
      if (other && same_model(*subject.model, *other)) subject.others.push_back(other);
    }
  }
}

}  // namespace

Task<void> read_subjects(Context& context, const Catalog& catalog, std::vector<ServiceId> ids, Subjects& out) {
  std::set<ServiceId> all;
  for (const auto& [id, service] : catalog.services)
    all.insert(id);
  const std::set<ServiceId> wanted(ids.begin(), ids.end());
  auto known = co_await context.known(std::move(all));
  out.knowledge = knowledge_of(catalog, {}, std::move(known.footprints));
  const bool asked = static_cast<bool>(context.machine());
  const auto paths = context.paths();
  const std::function<void()> read = [&] {
    // On GPUs that are only imagined nobody needs a unit manager; estimates there are all the same.
    if (!asked) add_estimates(paths, catalog, wanted, out.knowledge.footprints);
    for (const auto& id : ids)
      read_one(id, catalog, paths.home, out);
  };
  co_await run_blocking(read);
}

Task<void> read_other_quantizations(Subjects& subjects) {
  const std::function<void()> read = [&subjects] { read_others(subjects); };
  co_await run_blocking(read);
}

}  // namespace gpumod
