"""Room 4: finds the face in each picture and cuts it out."""
