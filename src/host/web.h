// Asking the web: one GET over HTTP or HTTPS through libcurl, bounded in time and size. For metadata, never for weights.
//
// libcurl is loaded when it is first needed: linked, its forty libraries would cost every `status` more than the whole
// rest of it (docs/decisions/0008). Its usual environment counts: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE.
//
// Redirects are followed here and not by libcurl, so that it can be seen who gets the token: the very server (scheme,
// name and port) that it was meant for, and nobody else: where it would go over plain HTTP, no proxy is asked either, for
// the proxy would read it. From HTTPS nothing leads back to HTTP.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "model/secret.h"

namespace gpumod {

struct WebRequest {
  std::string url;                                               ///< http:// or https://
  std::map<std::string, std::string> headers;                    ///< sent wherever a redirect leads
  Secret token;                                                  ///< a bearer token; empty: none
  std::optional<std::pair<std::uint64_t, std::uint64_t>> range;  ///< first and last byte
  std::size_t most_bytes = 8 << 20;                              ///< of the body; more is an error
  Duration connect_timeout = 10s;
  Duration idle_timeout = 15s;  ///< without a byte
  Duration timeout = 60s;       ///< for everything, redirects included
};

struct WebReply {
  int status = 0;
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
  /// The value, or "".
  std::string header(const std::string& name) const;
};

class Web {
 public:
  virtual ~Web() = default;
  /// Blocks: run it with run_blocking(). Every HTTP status is a reply. Errors: usage for an address that is none;
  /// environment when the server cannot be reached, does not answer in time, or breaks off; failed when it answers more
  /// than was allowed. The token is in no message.
  virtual Result<WebReply> get(const WebRequest& request) = 0;
};

/// Errors: environment, when there is no libcurl; GPUMOD_CURL_LIBRARY names another file than libcurl.so.4.
Result<std::unique_ptr<Web>> open_web();

/// True when a redirect from one address to the other may be followed.
bool may_lead_to(std::string_view from, std::string_view to);

/// "https://name:port" of an address, in lower case, the port always there; "" for what is no address of the web.
std::string web_origin(std::string_view url);

}  // namespace gpumod
