//! Codes to HTTP status numbers: the only file that knows them. Source: the API reference, "Error envelope".

use http::StatusCode;
use ringfence_node::Code;

/// The status of a code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Accepted => StatusCode::ACCEPTED,
        Code::NoContent => StatusCode::NO_CONTENT,
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Denied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        Code::Precondition => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Quota => StatusCode::TOO_MANY_REQUESTS,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Uninitialized => StatusCode::NOT_IMPLEMENTED,
        Code::Upstream => StatusCode::BAD_GATEWAY,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
        Code::Custom(n) => StatusCode::from_u16(n).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
