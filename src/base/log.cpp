#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

namespace gpumod {

namespace {

std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = [] {
    auto fresh = std::make_shared<spdlog::logger>("gpumod", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    fresh->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
    fresh->set_level(spdlog::level::warn);
    return fresh;
  }();
  return instance;
}

spdlog::level::level_enum as_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return spdlog::level::debug;
    case LogLevel::info: return spdlog::level::info;
    case LogLevel::warning: return spdlog::level::warn;
    case LogLevel::error: return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

Result<void> log_to_file(const std::filesystem::path& path) {
  try {
    const auto before = ::umask(0077);
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    ::umask(before);
    logger()->sinks() = {std::move(sink)};
    logger()->set_level(spdlog::level::info);
    logger()->flush_on(spdlog::level::info);
    logger()->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
  } catch (const spdlog::spdlog_ex& problem) {
    return fail(ErrorCode::failed, fmt::format("open the log {}: {}", path.string(), problem.what()));
  }
  return {};
}

void set_log_level(LogLevel level) {
  logger()->set_level(as_spdlog(level));
}
void log_line(LogLevel level, const std::string& text) {
  logger()->log(as_spdlog(level), text);
}

}  // namespace gpumod
