"""Read, clean and write the labels of detectors: COCO's json, Pascal VOC's XML files and YOLO's text files."""
