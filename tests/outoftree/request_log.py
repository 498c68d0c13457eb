"""A wrapper of the runtime: each request is a line in a log, without what is said in it and without its key."""

import logging

from sabir import SabirError
from sabir.requests import HttpRequest
from sabir.runtime import Line, Reply, RuntimeWrapper

logger = logging.getLogger(__name__)


class RequestLog(RuntimeWrapper):
    """Tells the status of each answer, and after how long it began; or why none did."""

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        began, place = self.now(), request.url.partition("?")[0]
        try:
            reply = await super().send(request, line)
        except SabirError as error:
            logger.warning("%s %s: %s", request.method, place, type(error).__name__)
            raise
        logger.info("%s %s: %d after %.3f s", request.method, place, reply.status, self.now() - began)
        return reply
