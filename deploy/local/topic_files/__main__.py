"""Serves the topic files until SIGTERM."""

import asyncio

from deploy.local.topic_files.app import run
from deploy.local.topic_files.settings import TopicFilesSettings

if __name__ == "__main__":
    asyncio.run(run(TopicFilesSettings()))
