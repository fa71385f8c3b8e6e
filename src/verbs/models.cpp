// model list, info, register, remove: the registry of models. Files are read and never changed; what is written is a
// record in the state file, or what the Hub answered in the cache.

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "engines/hub.h"
#include "formats/gguf.h"
#include "formats/model_file.h"
#include "model/json.h"
#include "verbs/handlers.h"
#include "verbs/hub_client.h"
#include "verbs/model_inspect.h"
#include "verbs/model_registry.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

/// Everything that is known of models, or why it cannot be known.
Task<Result<std::vector<ModelEntry>>> gather(Context& context) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto stored = context.registered_models();
  if (!stored) co_return fail(stored.error());
  std::vector<ModelEntry> entries;
  const auto& home = context.paths().home;
  const std::function<void()> look = [&] { entries = known_models(**catalog, *stored, home); };
  co_await run_blocking(look);
  co_return entries;
}

/// A service file that cannot be read may name a model that the list then lacks.
json::array incomplete(const Catalog& catalog) {
  json::array notes;
  for (const auto& id : catalog.broken_services)
    notes.emplace_back(fmt::format("the file of service '{}' cannot be read: its model may be missing here", id));
  return notes;
}

/// A blob of the hub's cache carries its own checksum as its name.
std::string checksum_by_name(const fs::path& path) {
  std::error_code problem;
  const auto real = fs::canonical(path, problem);
  const auto name = real.filename().string();
  const bool is_sum = name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
  return !problem && is_sum && real.parent_path().filename() == "blobs" ? name : std::string();
}

json::array files_json(const ModelFiles& files) {
  json::array out;
  for (const auto& file : files.files)
    out.push_back({{"path", file.path.string()},
                   {"role", to_string(file.role)},
                   {"bytes", file.size ? json::value(file.size->count()) : json::value(nullptr)},
                   {"modified", file.modified ? json::value(format_wall(WallTime(std::chrono::seconds(*file.modified))))
                                              : json::value(nullptr)},
                   {"sha256", text_or_null(checksum_by_name(file.path))},
                   {"problem", text_or_null(file.problem)}});
  return out;
}

std::string_view role_on_hub(const std::string& name) {
  if (is_projector_name(name)) return "projector";
  return is_gguf_name(name) || name.ends_with(".safetensors") ? "weights" : "configuration";
}

json::array files_json(const std::vector<HubFile>& files) {
  json::array out;
  for (const auto& file : files)
    out.push_back({{"path", file.name},
                   {"role", role_on_hub(file.name)},
                   {"bytes", file.size ? json::value(file.size->count()) : json::value(nullptr)},
                   {"modified", nullptr},
                   {"sha256", text_or_null(file.sha256)},
                   {"problem", nullptr}});
  return out;
}

/// What the Hub says of one model.
struct HubAnswer {
  HubRepository repository;
  std::string file;
  ModelFacts facts;
};

Task<Result<HubAnswer>> ask_hub(Context& context, HubName name, bool offline) {
  auto settings = hub_settings();
  if (!settings) co_return fail(settings.error());
  settings->offline = settings->offline || offline;
  HubClient client(std::move(*settings), context.paths().cache / "hub");
  Result<HubAnswer> answer = fail(ErrorCode::failed, "not asked");
  const std::function<void()> ask = [&] {
    const auto read = [&]() -> Result<HubAnswer> {
      HubAnswer found;
      found.repository = TRY(client.repository(name.id));
      found.file = name.file;
      found.facts = TRY(client.facts(found.repository, found.file));
      return found;
    };
    answer = read();
  };
  co_await run_blocking(ask);
  for (const auto& text : client.notices())
    context.notice(text);
  co_return answer;
}

/// The parts of an answer that inspection does not have.
void add_record(json::object& answer, const ModelEntry& entry) {
  auto listed = entry_json(entry);
  for (const char* key : {"id", "source", "registered", "path", "hub", "services", "missing"})
    answer[key] = listed[key];
}

/// The options of `model inspect` alone.
Request inspect_options(Request request) {
  request.erase("model");
  request.erase("offline");
  return request;
}

/// Nothing can be read of it now: what was kept, and why there is no more.
json::object kept_answer(const ModelEntry& entry) {
  json::object answer{{"model",
                       {{"name", entry.id},
                        {"format", nullptr},
                        {"class", nullptr},
                        {"kind", nullptr},
                        {"files", json::array()},
                        {"bytes", entry.files.bytes().count()}}}};
  auto listed = entry_json(entry);
  for (const char* key : {"architecture", "parameters", "context_length"})
    answer[key] = listed[key];
  answer["quantization"] = {{"name", listed["quantization"]}, {"types", json::array()}};
  answer["vram"] = nullptr;
  json::array notes;
  if (!entry.problem.empty()) notes.emplace_back(entry.problem);
  if (!entry.files.obstacles().empty())
    notes.emplace_back(entry.registered ? "Files are missing: shown is what was known when it was registered."
                                        : "Files are missing, so nothing can be read of it.");
  else if (!entry.absent() && entry.files.layout == ModelLayout::local)
    notes.emplace_back("It is neither GGUF nor safetensors with a config.json: only its files are known.");
  answer["notes"] = std::move(notes);
  return answer;
}

/// A pattern that means this text and no other.
std::string literal_pattern(const std::string& text) {
  std::string pattern;
  for (const char c : text)
    pattern += std::string_view("*?[").find(c) == std::string_view::npos ? std::string(1, c) : fmt::format("[{}]", c);
  return pattern;
}

/// How people fetch it: all of its files, a long series by a pattern.
std::string fetching(const HubAnswer& hub) {
  const auto& id = hub.repository.id;
  if (hub.file.empty()) return download_command(id);
  constexpr std::size_t most_names = 8;
  const auto files = files_of_hub_model(hub.repository, hub.file);
  const auto part = gguf_part_of(hub.file);
  if (part && files.size() > most_names) {
    const auto prefix = (fs::path(hub.file).parent_path() / part->prefix).string();
    return download_command(id, {fmt::format("--include={}-*-of-{:05}.gguf", literal_pattern(prefix), part->count)});
  }
  std::vector<std::string> words;
  for (const auto& file : files)
    words.push_back(file.name);
  const bool like_options = std::any_of(words.begin(), words.end(), [](const auto& word) { return word[0] == '-'; });
  if (like_options) words.insert(words.begin(), "--");
  return download_command(id, words);
}

/// The Hub gives no answer, and nothing of an earlier one was kept: then what was registered is what is known.
json::value record_alone(const ModelEntry& entry, const Error& why) {
  auto answer = kept_answer(entry);
  add_record(answer, entry);
  auto& hub = answer["hub"].get_object();
  hub["revision"] = nullptr;
  hub["gated"] = nullptr;
  answer["files"] = json::array();
  answer["notes"].get_array().emplace_back(
      fmt::format("{}: shown is what was known when it was registered.", why.message));
  return answer;
}

Answer info_from_hub(Context& context, ModelEntry entry, Request request) {
  const bool offline = flag_of(request, "offline");
  HubName name{entry.hub_id, entry.hub_file};
  auto asked = co_await ask_hub(context, std::move(name), offline);
  if (!asked && (!entry.registered || asked.error().code == ErrorCode::usage)) co_return fail(asked.error());
  if (!asked) co_return record_alone(entry, asked.error());
  auto options = inspect_options(std::move(request));
  auto answer = co_await describe_model(context, std::move(asked->facts), std::move(options), ModelIs::elsewhere);
  if (!answer) co_return fail(answer.error());
  entry.hub_file = asked->file;
  if (!entry.registered && !entry.hub_file.empty()) entry.id = fmt::format("{}:{}", entry.hub_id, entry.hub_file);
  add_record(*answer, entry);
  (*answer)["files"] = files_json(files_of_hub_model(asked->repository, asked->file));
  auto& hub = (*answer)["hub"].get_object();
  hub["revision"] = text_or_null(asked->repository.revision);
  hub["gated"] = asked->repository.gated;
  auto& notes = (*answer)["notes"].get_array();
  notes.emplace_back(fmt::format("It is on Hugging Face and not on this machine. {} fetches it.", fetching(*asked)));
  co_return json::value(std::move(*answer));
}

Answer info_from_disk(Context& context, ModelEntry entry, Request request) {
  Result<ModelFacts> facts = fail(ErrorCode::failed, "not read");
  if (entry.files.obstacles().empty() && entry.files.layout != ModelLayout::local) {
    const std::function<void()> read = [&] { facts = read_model(entry.path); };
    co_await run_blocking(read);
    if (!facts && entry.problem.empty()) entry.problem = facts.error().message;
  }
  auto answer = Result<json::object>(kept_answer(entry));
  if (facts) {
    auto options = inspect_options(std::move(request));
    answer = co_await describe_model(context, std::move(*facts), std::move(options), ModelIs::here);
  }
  if (!answer) co_return fail(answer.error());
  add_record(*answer, entry);
  if (entry.files.obstacles().empty())
    for (const auto& problem : entry.files.problems())
      (*answer)["notes"].get_array().emplace_back(fmt::format("{}: the model can be served without it.", problem));
  (*answer)["files"] = files_json(entry.files);
  co_return json::value(std::move(*answer));
}

/// The entry that people mean, by its id or by where it is.
const ModelEntry* find_entry(const std::vector<ModelEntry>& entries, const std::string& wanted) {
  for (const auto& entry : entries)
    if (entry.id == wanted) return &entry;
  for (const auto& entry : entries)
    if (entry.hub_file.empty() && entry.hub_id == wanted) return &entry;
  std::error_code problem;
  const auto place = same_place(fs::absolute(wanted, problem));
  for (const auto& entry : entries)
    if (!entry.path.empty() && same_place(entry.path) == place) return &entry;
  return nullptr;
}

}  // namespace

Answer model_list(Context& context, Request) {
  const auto entries = co_await gather(context);
  if (!entries) co_return fail(entries.error());
  json::array models;
  for (const auto& entry : *entries)
    models.emplace_back(entry_json(entry));
  const auto catalog = context.catalog();
  co_return json::value(json::object{{"models", std::move(models)}, {"notes", incomplete(**catalog)}});
}

Answer model_info(Context& context, Request request) {
  const auto wanted = text_of(request, "model");
  if (wanted.empty()) co_return fail(ErrorCode::usage, "model info needs the id of a model, or a path");
  const auto entries = co_await gather(context);
  if (!entries) co_return fail(entries.error());
  const ModelEntry* entry = nullptr;
  bool is_path = false;
  const std::function<void()> search = [&] {
    std::error_code problem;
    entry = find_entry(*entries, wanted);
    is_path = fs::exists(fs::symlink_status(wanted, problem));
  };
  co_await run_blocking(search);
  if (entry) {
    if (entry->path.empty()) co_return co_await info_from_hub(context, *entry, std::move(request));
    co_return co_await info_from_disk(context, *entry, std::move(request));
  }
  if (is_path) {
    auto unknown = entry_for(wanted);
    Result<void> readable;
    const std::function<void()> look = [&] {
      look_at(unknown);
      // Nobody knows it: then what is wrong with it is the answer.
      if (unknown.problem.empty() && unknown.files.obstacles().empty()) return;
      if (const auto facts = read_model(unknown.path); !facts) readable = fail(facts.error());
    };
    co_await run_blocking(look);
    if (!readable) co_return fail(readable.error());
    co_return co_await info_from_disk(context, std::move(unknown), std::move(request));
  }
  if (const auto name = parse_hub_name(wanted)) {
    ModelEntry remote;
    remote.id = name->id;
    remote.source = "huggingface";
    remote.hub_id = name->id;
    remote.hub_file = name->file;
    co_return co_await info_from_hub(context, std::move(remote), std::move(request));
  }
  std::vector<std::string> ids;
  for (const auto& each : *entries)
    ids.push_back(each.id);
  co_return fail(ErrorCode::not_found, fmt::format("there is no model '{}', and no such path", printable(wanted)),
                 did_you_mean(wanted, ids));
}

namespace {

/// The record of a model on this machine. Errors: what its reader says.
Result<StoredModel> record_of_path(const std::string& id, const std::string& path) {
  auto entry = entry_for(path);
  entry.files = files_of_model(entry.path);
  const auto problems = entry.files.obstacles();
  if (entry.files.layout != ModelLayout::local) {
    const auto facts = TRY(read_model(entry.path));
    entry.summary = summary_of(facts);
  } else if (!problems.empty() || entry.files.files.empty()) {
    return fail(ErrorCode::not_found,
                problems.empty() ? fmt::format("{} holds no files", printable(entry.path.string())) : problems.front(),
                "Name a GGUF file, or the folder of a model.");
  }
  if (!problems.empty())
    return fail(ErrorCode::not_found, problems.front(), "Register it when all of its files are there.");
  return StoredModel{id,         std::string(to_string(entry.files.layout)),
                     entry.path, "",
                     "",         facts_to_store(entry.summary, entry.files, entry.files.bytes()),
                     wall_now()};
}

StoredModel record_of_hub(const std::string& id, const HubAnswer& hub) {
  Bytes bytes;
  for (const auto& file : files_of_hub_model(hub.repository, hub.file))
    bytes += file.size.value_or(Bytes());
  return {id,        "huggingface", {}, hub.repository.id, hub.file, facts_to_store(summary_of(hub.facts), {}, bytes),
          wall_now()};
}

const StoredModel* find_record(const std::vector<StoredModel>& records, const std::string& id) {
  for (const auto& record : records)
    if (record.id == id) return &record;
  return nullptr;
}

std::string where_is(const StoredModel& record) {
  if (!record.path.empty()) return printable(record.path.string());
  return record.hub_file.empty() ? record.hub_id : fmt::format("{}:{}", record.hub_id, record.hub_file);
}

json::object registered_json(const StoredModel& record) {
  boost::system::error_code malformed;
  const auto facts = json::parse(record.facts, malformed);
  json::object out{{"model", record.id}, {"source", record.source}, {"where", where_is(record)}};
  for (const char* key : {"architecture", "parameters", "quantization", "context_length", "bytes"})
    out[key] = facts.at(key);
  return out;
}

}  // namespace

Answer model_register(Context& context, Request request) {
  const auto id = text_of(request, "model"), path = text_of(request, "path"), hub = text_of(request, "hf");
  if (!is_model_id(id))
    co_return fail(ErrorCode::usage, fmt::format("'{}' cannot be the id of a model", printable(id)),
                   "Use letters, digits, '.', '_' and '-', such as qwen3-coder or Qwen/Qwen3-8B.");
  if (path.empty() == hub.empty())
    co_return fail(ErrorCode::usage, "model register needs either --path or --hf",
                   "--path FILE for a model on this machine, --hf ORG/NAME for one on Hugging Face.");
  const auto stored = context.registered_models();
  if (!stored) co_return fail(stored.error());
  const auto taken = [&](const StoredModel& other) {
    return fail(ErrorCode::refused, fmt::format("there is a model '{}' already: {}", id, where_is(other)),
                fmt::format("Choose another id, or remove that record: gpumod model remove {}.", id));
  };
  if (const auto* other = find_record(*stored, id)) co_return taken(*other);

  Result<StoredModel> record = fail(ErrorCode::failed, "not read");
  if (!path.empty()) {
    const std::function<void()> read = [&] { record = record_of_path(id, path); };
    co_await run_blocking(read);
  } else {
    auto name = parse_hub_name(hub);
    if (!name) co_return fail(name.error());
    const auto asked = co_await ask_hub(context, std::move(*name), flag_of(request, "offline"));
    if (!asked) co_return fail(asked.error());
    record = record_of_hub(id, *asked);
  }
  if (!record) co_return fail(record.error());
  auto store = Store::open(context.paths().state, WhenCorrupt::refused);
  if (!store) co_return fail(store.error());
  const auto added = store->add_model(*record);
  if (!added) co_return fail(added.error());
  if (!*added) {  // somebody else was quicker
    const auto since = store->models();
    const auto* found = since ? find_record(*since, id) : nullptr;
    co_return taken(found ? *found : *record);
  }
  co_return json::value(json::object{{"registered", registered_json(*record)}});
}

Answer model_remove(Context& context, Request request) {
  const auto id = text_of(request, "model");
  const auto stored = context.registered_models();
  if (!stored) co_return fail(stored.error());
  std::vector<std::string> ids;
  for (const auto& record : *stored) {
    ids.push_back(record.id);
    if (record.id != id) continue;
    auto store = Store::open(context.paths().state, WhenCorrupt::refused);
    if (!store) co_return fail(store.error());
    const auto removed = store->remove_model(id);
    if (!removed) co_return fail(removed.error());
    co_return json::value(json::object{
        {"removed", {{"model", id}, {"where", where_is(record)}}},
        {"notes", json::array{record.path.empty() ? "Only the record is gone."
                                                  : "Only the record is gone: its files stay where they are."}}});
  }
  // Perhaps a service declares it: then it is people's own file that names it.
  const auto entries = co_await gather(context);
  if (entries)
    for (const auto& entry : *entries)
      if (entry.id == id && !entry.services.empty())
        co_return fail(ErrorCode::refused,
                       fmt::format("'{}' was never registered: service '{}' declares it", id, *entry.services.begin()),
                       "It leaves the list when the service's file names another model.");
  co_return fail(ErrorCode::not_found, fmt::format("no model '{}' is registered", printable(id)),
                 did_you_mean(id, ids));
}

}  // namespace gpumod
