-- Run once, by PostgreSQL's image, when its volume is new; the database forecastle is made by the image itself.
CREATE DATABASE mlflow;
CREATE DATABASE airflow;
