# One image for every role; which one is the command: python -m driftloop.roles monitor|sink|notify|score|train
FROM python:3.11-slim

WORKDIR /opt/driftloop
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 DO_NOT_TRACK=1
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY measures measures
COPY store store
COPY streams streams
COPY consumers consumers
COPY retrain retrain
COPY driftloop driftloop
RUN pip install -c constraints.txt .

RUN useradd --create-home driftloop && mkdir /data && chown driftloop /data
USER driftloop
ENV DRIFTLOOP_DATA=/data
ENTRYPOINT ["python", "-m", "driftloop.roles"]
